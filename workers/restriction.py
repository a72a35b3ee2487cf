"""Maps kept to the parts of an image that hold image data, as ultrasound declares them.

The model sees the whole image. Of its map, cells that lie wholly outside of the
regions are 0 from where the map leaves its method, so that what is bound,
judged, drawn and counted is the same map; each region is then drawn as an image
of its own, which ends at its edge.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.domain.explanation import Restriction
from service.domain.grid import Grid, apply, scaling
from workers.regions import Box

HALF: Final = 0.5
"""A pixel and a cell reach this far from their centers."""

TOUCH: Final = 1e-6
"""Pixels by which a cell must reach into a region: less is rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One region of an image, and the map's cells that reach into it."""

    pixels: tuple[slice, slice]
    """Rows and columns of the image."""

    cells: tuple[slice, slice]
    """Rows and columns of the map."""

    grid: Grid
    """Of these cells, in pixels of the region."""


def restrict(
    values: NDArray[np.float32], grid: Grid, boxes: Sequence[Box]
) -> tuple[NDArray[np.float32], Restriction | None]:
    """Return a map that is 0 in every cell that reaches into none of the boxes.

    Parameters
    ----------
    values
        Shape ``(C, *grid.shape)``. Values that are not finite stay, lest a
        broken map looks intact.
    grid
        The map's cells in the source image, of rows and columns.
    boxes
        Top, left, bottom, right in source pixels, the last two past the end.

    Returns
    -------
    tuple
        The map and what was done to it; the map itself and `None` without boxes.
    """
    if not boxes:
        return values, None
    kept = np.any([np.logical_and.outer(*_reached(grid, box)) for box in boxes], axis=0)
    dropped = ~kept & np.isfinite(values)
    outside = np.where(dropped, values, 0).astype(np.float64)
    whole = float(np.abs(values, where=np.isfinite(values), out=np.zeros_like(values)).sum())
    return np.where(dropped, np.float32(0), values), Restriction(
        to="ultrasound_regions",
        regions=tuple(boxes),
        outside_sum=float(outside.sum()),
        outside_share=float(np.abs(outside).sum() / whole) if whole else 0.0,
    )


def parts(grid: Grid, boxes: Sequence[Box]) -> Iterator[Part]:
    """Yield each box of an image with its cells; without boxes, the image as one part.

    A box that the map does not reach is left out.
    """
    if not boxes:
        every = (slice(None), slice(None))
        yield Part(every, every, grid)
    for box in boxes:
        rows, columns = _reached(grid, box)
        if not (rows.any() and columns.any()):
            continue
        cells = (_span(rows), _span(columns))
        shift = scaling((1, 1), (-box[0], -box[1]))
        first = scaling((1, 1), (cells[0].start, cells[1].start))
        extent = tuple(each.stop - each.start for each in cells)
        pixels = (slice(box[0], box[2]), slice(box[1], box[3]))
        yield Part(pixels, cells, Grid(extent, shift @ grid.affine @ first))


def nearest(point: ArrayLike, boxes: Sequence[Box]) -> tuple[float, ...]:
    """Return the place in the boxes that lies nearest to a point of the image."""
    at = np.asarray(point, float)
    if not boxes:
        return tuple(map(float, at))
    ends = np.array(boxes, float)
    found = np.clip(at, ends[:, :2], ends[:, 2:] - 1)
    best = found[np.linalg.norm(found - at, axis=1).argmin()]
    return tuple(map(float, best))


def _reached(grid: Grid, box: Box) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell of each row and each column of cells whether it reaches into a box."""
    index = np.arange(max(grid.shape))
    centers = apply(grid.affine, np.stack([index, index], axis=1))
    half = np.abs(np.diag(grid.affine)[:2]) * HALF
    rows, columns = (
        (centers[:count, axis] + half[axis] > box[axis] - HALF + TOUCH)
        & (centers[:count, axis] - half[axis] < box[axis + 2] - HALF - TOUCH)
        for axis, count in enumerate(grid.shape)
    )
    return rows, columns


def _span(reached: NDArray[np.bool_]) -> slice:
    """Return the cells that are reached, which lie side by side."""
    (found,) = np.nonzero(reached)
    return slice(int(found[0]), int(found[-1]) + 1)
