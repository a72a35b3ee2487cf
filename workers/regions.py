"""Where evidence may lie: a package's expected region, laid over a model's input."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.domain.grid import Grid
from service.domain.manifest import Manifest
from service.domain.regions import BoxRegion, InnerRegion, MaskRegion, Region
from service.errors.models import ModelUnavailable

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]


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
    manifest: Manifest,
    mask: Mask | None,
    grid: Grid,
    source: tuple[int, ...],
    boxes: Sequence[Box] = (),
) -> Array | None:
    """Return how far each pixel of the model's input lies in the expected region.

    A region is one of rows and columns; over a volume it is laid slice by slice.

    Parameters
    ----------
    mask
        Of `read_mask`.
    grid
        The model input's pixels in the source image.
    source
        Rows and columns of the source image, or slices, rows and columns of a volume.
    boxes
        What the image itself declares, as ultrasound does: top, left, bottom
        and right in source pixels. Evidence may lie in any of them.

    Returns
    -------
    Array
        1 inside, 0 outside, shape ``grid.shape``; `None` if neither model nor
        image declares a region.
    """
    region = manifest.explain.expected_region
    if region is None and not boxes:
        return None
    axes = (len(source) - 2, len(source) - 1)
    row, column = ((grid.places(axis) + 0.5) / source[axis] for axis in axes)
    kept = np.ones(grid.shape, np.bool_)
    if region is not None:
        kept = kept & _laid(region, mask, row, column)
    if boxes:
        shown = [_boxed(_share(box, source[-2:]), row, column) for box in boxes]
        kept = kept & np.any(shown, axis=0)
    return kept.astype(np.float64)


def _laid(region: Region, mask: Mask | None, row: Array, column: Array) -> Mask:
    """Lay the model's own region over the image."""
    if isinstance(region, InnerRegion):
        return _inner(region, row, column)
    if isinstance(region, BoxRegion):
        return _boxed(region, row, column)
    return _masked(np.asarray(mask), row, column)


def _share(box: Box, source: tuple[int, ...]) -> BoxRegion:
    """Return a box of pixels as shares of the image's edges."""
    (top, left, bottom, right), (rows, columns) = box, source
    return BoxRegion(
        kind="box",
        top=top / rows,
        left=left / columns,
        bottom=bottom / rows,
        right=right / columns,
    )


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
