"""Which cells of a model's input the boxes and points of a request hold; without torch."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from service.domain.grid import Grid
from service.domain.target import Box, Point, SegmentationTarget, Target
from service.errors.requests import InvalidTarget

Mask = NDArray[np.bool_]


def demand_cells(targets: Sequence[Target], grid: Grid) -> None:
    """Require of every box and point that it holds some cell of the model's input.

    One that lies on the image holds none where it is smaller than a cell and between their
    centers, or where the model's steps crop.

    Raises
    ------
    InvalidTarget
        One holds none, or has other axes than the image.
    """
    for number, target in enumerate(targets):
        region = target.region if isinstance(target, SegmentationTarget) else None
        if isinstance(region, Box | Point) and not placed(region, grid).any():
            first, last = grid.to_source(np.outer([0, 1], np.array(grid.shape) - 1))
            raise InvalidTarget(
                "The region holds the center of no pixel of the model's input: give a larger one"
                " (a pixel is 'cell' source pixels), or one between the centers of the first and"
                " the last ('first', 'last').",
                field=f"/targets/{number}/region",
                reason="empty_region",
                cell=_rounded(grid.cell),
                first=_rounded(first + 0.5),
                last=_rounded(last + 0.5),
            )


def _rounded(places: Iterable[float]) -> list[JsonValue]:
    return [round(float(each), 2) for each in places]


def placed(region: Box | Point, grid: Grid) -> Mask:
    """Return the pixels of a place of the source, bool, shape of `grid`.

    Raises
    ------
    InvalidTarget
        It has other axes than the image.
    """
    return _within(region.box, grid) if isinstance(region, Box) else _at(region.at, grid)


def _within(box: tuple[float, ...], grid: Grid) -> Mask:
    """Return the pixels whose centers lie in a box of the source."""
    demand_axes(len(box) // 2, grid)
    mask = np.ones(grid.shape, np.bool_)
    for axis, (low, high) in enumerate(zip(*np.split(np.array(box), 2), strict=True)):
        edges = grid.places(axis) + 0.5  # source pixel i covers [i, i + 1) of a box
        mask &= (edges >= low) & (edges < high)
    return mask


def _at(place: tuple[float, ...], grid: Grid) -> Mask:
    """Return the one pixel that holds a place of the source."""
    demand_axes(len(place), grid)
    index = np.rint(grid.from_source(place)).astype(int)
    mask = np.zeros(grid.shape, np.bool_)
    if ((index >= 0) & (index < grid.shape)).all():
        mask[tuple(index)] = True
    return mask


def demand_axes(count: int, grid: Grid) -> None:
    """Require of what a request marks that it has the axes of the image.

    Raises
    ------
    InvalidTarget
        It has others.
    """
    if count != len(grid.shape):
        raise InvalidTarget("The region has not as many axes as the image.", axes=len(grid.shape))
