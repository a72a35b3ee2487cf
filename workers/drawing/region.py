"""The salient region: the part of the source image that a map marks most clearly."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

SHARE: Final = 0.5
"""Of full strength: where the color bar has half its length."""

RULE: Final = "half_of_full_strength"


@dataclass(frozen=True, slots=True)
class Region:
    """All pixels whose relevance reaches a threshold.

    Attributes
    ----------
    threshold
        Smallest relevance inside, in the map's own unit.
    mask
        Bool, shape of the source image.
    mass
        The region's share of all positive relevance, in [0, 1].
    """

    threshold: float
    mask: NDArray[np.bool_]
    mass: float

    @property
    def pixels(self) -> int:
        """How many source pixels it covers; 0 where the evidence is too faint."""
        return int(np.count_nonzero(self.mask))


def salient(relevance: NDArray[np.float32], full: float) -> Region:
    """Return where the evidence for the target reaches half of full strength.

    Parameters
    ----------
    relevance
        Finite relevance of each source pixel, shape ``(rows, columns)``.
        Evidence against the target, below zero, is never inside.
    full
        Relevance that pictures draw at full strength, above 0: the model's
        usual, where it is known, so that a map of faint evidence has no region.
    """
    threshold = SHARE * full
    mask = relevance >= threshold
    total = float(relevance.sum(where=relevance > 0, dtype=np.float64))  # no copy of a volume
    inside = float(relevance.sum(where=mask, dtype=np.float64))
    return Region(threshold, mask, inside / total if total > 0 else 0.0)
