"""Where in its image a map lies, and maps kept to the parts of one that hold image data.

A map may reach beyond its image, over what the model's steps put around it. What is told in
the image's coordinates is of the cells that reach into it.

Of an ultrasound image that declares its regions the model sees all. Of its map,
cells that lie wholly outside of the regions are 0 from where the map leaves its
method, so that what is bound, judged, drawn and counted is the same map; each
region is then drawn as an image of its own, which ends at its edge.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.domain.explanation import Restriction
from service.domain.grid import Grid, scaling
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


def nearest(point: ArrayLike, boxes: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Return the place in the boxes that lies nearest to a point."""
    at = np.asarray(point, float)
    low, high = np.split(np.array(boxes, float), 2, axis=1)
    found = np.clip(at, low, high - 1)
    best = found[np.linalg.norm(found - at, axis=1).argmin()]
    return tuple(map(float, best))


def peak(
    relevance: NDArray[np.floating], grid: Grid, extent: tuple[int, ...], boxes: Sequence[Box] = ()
) -> tuple[tuple[float, ...], float] | None:
    """Return the place of the most relevant cell that reaches into the image, and its value.

    Of several that are alike it is the one nearest to their middle.

    Parameters
    ----------
    relevance
        Finite, shape ``grid.shape``.
    extent
        Pixels of the image along each of its axes.
    boxes
        To which a map of an image was kept, if it was: a cell must reach into one of them.

    Returns
    -------
    tuple
        The source pixel at the cell's center, or the nearest in image or boxes where that lies
        beside them; `None` where all these cells are alike.
    """
    within = boxes or ((0,) * len(extent) + extent,)
    lows, highs, best = [], [], None
    for box in within:
        reached = {grid.order[axis]: each for axis, each in enumerate(_reached(grid, box))}
        if not all(each.any() for each in reached.values()):
            continue
        cells = tuple(_span(reached[along]) for along in range(len(extent)))
        part = relevance[cells]
        lows.append(part.min())
        highs.append(part.max())
        if highs[-1] == max(highs):
            alike = np.argwhere(part == highs[-1])
            away = np.linalg.norm(alike - alike.mean(axis=0), axis=1)
            best = alike[away.argmin()] + [each.start for each in cells]
    if best is None or min(lows) == max(highs):
        return None
    return nearest(grid.to_source(best), within), float(max(highs))


def padding_share(values: NDArray[np.floating], grid: Grid, extent: tuple[int, ...]) -> float:
    """Return the share of a map's magnitude that lies beside the image, in [0, 1].

    Parameters
    ----------
    values
        Shape ``(C, *grid.shape)``; those that are not finite count as zero. A cell that is partly
        in the image counts in parts.
    extent
        Pixels of the image along each of its axes.
    """
    covered = grid.covered(extent)
    if all((each == 1).all() for each in covered):
        return 0.0
    whole = within = 0.0
    for share, part in zip(covered[0], values.swapaxes(0, 1), strict=True):
        mass = np.abs(part, where=np.isfinite(part), out=np.zeros(part.shape)).sum(axis=0)
        whole += float(mass.sum())
        for each in covered[:0:-1]:
            mass = mass @ each
        within += float(share * mass)
    return 1 - within / whole if whole else 0.0


def seen_share(grid: Grid, extent: tuple[int, ...]) -> float:
    """Return the share of an image of `extent` pixels that a map covers, in (0, 1]."""
    share = 1.0
    for axis, pixels in enumerate(extent):
        start, end = grid.edges(axis)
        share *= (min(end.max(), pixels - HALF) - max(start.min(), -HALF)) / pixels
    return round(float(share), 9)  # edges may meet


def _reached(grid: Grid, box: Sequence[int]) -> tuple[NDArray[np.bool_], ...]:
    """Tell of the cells along each axis of the source whether they reach into a box."""
    axes = len(grid.shape)
    edges = [grid.edges(axis) for axis in range(axes)]
    return tuple(
        (end > box[axis] - HALF + TOUCH) & (start < box[axis + axes] - HALF - TOUCH)
        for axis, (start, end) in enumerate(edges)
    )


def _span(reached: NDArray[np.bool_]) -> slice:
    """Return the cells that are reached, which lie side by side."""
    (found,) = np.nonzero(reached)
    return slice(int(found[0]), int(found[-1]) + 1)
