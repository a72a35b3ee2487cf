"""Where evidence may lie: a package's expected region, laid over a model's input."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.domain.grid import Grid
from service.domain.manifest import BoxRegion, InnerRegion, Manifest, MaskRegion
from service.errors import ModelUnavailable

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def read_mask(manifest: Manifest, folder: Path) -> Mask | None:
    """Return the mask of a package's region, shape ``(rows, columns)``; `None` if it has none.

    Raises
    ------
    ModelUnavailable
        The file is no mask of two axes, or an empty one.
    """
    region = manifest.explain.expected_region
    if not isinstance(region, MaskRegion):
        return None
    mask = np.load(folder / region.path, allow_pickle=False)
    if mask.ndim != 2 or not np.isin(mask, (0, 1)).all() or not mask.any():  # noqa: PLR2004
        raise ModelUnavailable("The mask of the expected region is no mask of rows and columns.")
    return np.asarray(mask, np.bool_)


def inside(
    manifest: Manifest, mask: Mask | None, grid: Grid, source: tuple[int, int]
) -> Array | None:
    """Return how far each pixel of the model's input lies in the expected region.

    Parameters
    ----------
    mask
        Of `read_mask`.
    grid
        The model input's pixels in the source image.
    source
        Rows and columns of the source image.

    Returns
    -------
    Array
        1 inside, 0 outside, shape ``grid.shape``; `None` if no region is declared.
    """
    region = manifest.explain.expected_region
    if region is None:
        return None
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    shares = (grid.to_source(index) + 0.5) / np.array(source)
    row, column = shares[..., 0], shares[..., 1]
    if isinstance(region, InnerRegion):
        return _inner(region, row, column).astype(np.float64)
    if isinstance(region, BoxRegion):
        return _boxed(region, row, column).astype(np.float64)
    return _masked(np.asarray(mask), row, column).astype(np.float64)


def _boxed(region: BoxRegion, row: Array, column: Array) -> Mask:
    """Keep what lies in the box."""
    down = (region.top <= row) & (row < region.bottom)
    return np.asarray(down & (region.left <= column) & (column < region.right))


def _inner(region: InnerRegion, row: Array, column: Array) -> Mask:
    """Leave out the border, and each corner's square."""
    down, across = np.minimum(row, 1 - row), np.minimum(column, 1 - column)
    bordered = (down >= region.border) & (across >= region.border)
    return np.asarray(bordered & ((down >= region.corner) | (across >= region.corner)))


def _masked(mask: Mask, row: Array, column: Array) -> Mask:
    """Look up the mask's pixel at each place; places beyond it lie outside."""
    at = [
        np.floor(share * size).astype(int)
        for share, size in zip((row, column), mask.shape, strict=True)
    ]
    within = [(each >= 0) & (each < size) for each, size in zip(at, mask.shape, strict=True)]
    clipped = [np.clip(each, 0, size - 1) for each, size in zip(at, mask.shape, strict=True)]
    return np.asarray(mask[clipped[0], clipped[1]] & within[0] & within[1])
