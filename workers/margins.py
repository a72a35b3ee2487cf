"""How wide an image's uniform margins are: black borders, collimators, letterboxes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.domain.manifest import Manifest
from workers.gaps import read_cases

FLAT: Final = 0.01
"""Share of the image's range by which values of one margin may differ."""


Margins = tuple[float, ...]
"""Of the start and the end of each axis in turn, as shares of it: top, bottom, left, right."""


def margins(image: NDArray[np.floating[Any]]) -> Margins:
    """Return how far uniform lines reach in from each edge.

    Parameters
    ----------
    image
        The model's input, shape ``(C, *spatial)``. Lines that are uniform and alike in every
        channel are a margin; of volumes, planes.
    """
    axes = tuple(range(1, image.ndim))
    allowed = FLAT * (image.max(axis=axes) - image.min(axis=axes))
    found = []
    for axis in axes:
        others = tuple(each for each in axes if each != axis)
        least, most = image.min(axis=others), image.max(axis=others)
        found += [_run(least[:, ::way], most[:, ::way], allowed) for way in (1, -1)]
    return tuple(found)


def _run(least: NDArray[Any], most: NDArray[Any], allowed: NDArray[Any]) -> float:
    """Return the share of lines, from the first on, that are alike; shapes ``(C, lines)``."""
    spread = np.maximum.accumulate(most, axis=1) - np.minimum.accumulate(least, axis=1)
    alike = np.logical_and.reduce(spread <= allowed[:, None])
    return float(np.cumprod(alike).mean())


def known_margins(manifest: Manifest, folder: Path, shape: tuple[int, ...]) -> tuple[Margins, ...]:
    """Return the widest margins of a model's validation cases; nothing where it has none.

    They are those of each view, because air lies on another side of each; of an image or a
    volume of it alone.

    Parameters
    ----------
    folder
        Where the package lies unpacked.
    shape
        Shape of the model's input without the batch axis.
    """
    read = None if manifest.calibration is None else read_cases(folder / manifest.calibration.cases)
    if read is None or read[0].shape[1:] != shape or not len(read[0]):
        return ()
    images = read[0].float().numpy()
    views = images.swapaxes(0, 2).swapaxes(1, 2) if manifest.image.several else images[None]
    return tuple(_widest([margins(each) for each in view]) for view in views)


def _widest(every: Sequence[Margins]) -> Margins:
    return tuple(max(each) for each in zip(*every, strict=True))
