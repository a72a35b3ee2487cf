r"""Soft cells that tile an image: the places that the probe bank hides, one at a time.

All lengths are shares of the image's edges, so that one set of cells serves
every image, square or not. A cell is a box with soft walls: its weight along an
axis at share ``u`` is

.. math:: w(u) = \operatorname{clip}(\tfrac{u - a}{s} + \tfrac12, 0, 1)
          \operatorname{clip}(\tfrac{b - u}{s} + \tfrac12, 0, 1)

with walls `a`, `b` and softness `s`; over several axes weights are multiplied.
Cells side by side sum to 1 everywhere, also at the image's border.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

SOFT_SHARE: Final = 0.25
"""Width of a soft wall, as a share of the cell."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """Cells of one size that stand side by side."""

    edge: float
    """Length of a cell, as a share of the image's edge."""

    walls: tuple[tuple[tuple[float, float], ...], ...]
    """For each cell, and each axis, its lower and upper wall."""

    def weights(self, shape: Sequence[int]) -> NDArray[np.float64]:
        """Return every cell's weight at each pixel's center, shape ``(cells, *shape)``."""
        centers = [(np.arange(size) + 0.5) / size for size in shape]
        return np.stack([self._cell(cell, centers) for cell in self.walls])

    def _cell(
        self, walls: tuple[tuple[float, float], ...], centers: Sequence[NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """Return one cell's weight at each pixel's center."""
        soft = SOFT_SHARE * self.edge
        weight = np.ones(())
        for (lower, upper), u in zip(walls, centers, strict=True):
            rise = np.clip((u - lower) / soft + 0.5, 0, 1)
            fall = np.clip((upper - u) / soft + 0.5, 0, 1)
            weight = weight[..., None] * (rise * fall)
        return weight


@cache
def lattices(axes: int) -> tuple[Lattice, ...]:
    """Return the bank's cells for an image of 2 or 3 axes.

    In 2-D these are 4 x 4 cells, and 3 x 3 of the same size around the inner
    corners of the first: 25. In 3-D they are 3 x 3 x 3: 27.

    Raises
    ------
    ValueError
        There is no bank for another number of axes.
    """
    if axes == 2:  # noqa: PLR2004 - rows and columns
        return _whole(4, 2), _inner(4, 2)
    if axes == 3:  # noqa: PLR2004 - slices, rows and columns
        return (_whole(3, 3),)
    raise ValueError("the probe bank is made for images of two or three axes")


def _whole(count: int, axes: int) -> Lattice:
    """Return ``count`` cells along each axis; the outermost reach beyond the border."""
    edge, beyond = 1 / count, SOFT_SHARE / count / 2
    spans = [
        (k * edge - (beyond if k == 0 else 0), (k + 1) * edge + (beyond if k == count - 1 else 0))
        for k in range(count)
    ]
    return Lattice(edge, tuple(product(spans, repeat=axes)))


def _inner(count: int, axes: int) -> Lattice:
    """Return cells shifted by half their edge, as many as fit without wrapping."""
    edge = 1 / count
    spans = [((k + 0.5) * edge, (k + 1.5) * edge) for k in range(count - 1)]
    return Lattice(edge, tuple(product(spans, repeat=axes)))
