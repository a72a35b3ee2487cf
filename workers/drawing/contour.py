"""The source image with a line around the evidence: the anatomy inside stays untouched."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.domain.grid import Grid
from workers.drawing.overlay import Rgb, Scale, plain
from workers.drawing.palettes import diverging, sequential
from workers.drawing.region import SHARE
from workers.drawing.resample import to_source

Mask = NDArray[np.bool_]
DARK: Final = (0, 0, 0)
"""Color of the line's outer border, so that it shows on bright pixels too."""

WHITE: Final = (255, 255, 255)
"""Color of a box that is explained: no evidence has it."""

PER_PIXEL: Final = 350
"""Edge of an image whose line is one pixel wide; in larger ones it widens in proportion."""

BRIGHT: Final = 208
"""Level of the sequential colors that stands out from grays."""


def contours(
    relevance: NDArray[np.float32], grid: Grid, shape: tuple[int, int], scale: Scale
) -> Iterator[tuple[Mask, NDArray[np.uint8]]]:
    """Yield each region with its color: where relevance reaches half of full strength.

    Parameters
    ----------
    relevance
        The map on its own grid, shape ``grid.shape``.
    shape
        Rows and columns of the source image.
    scale
        Signed ones have a region against the target as well.
    """
    fine = to_source(relevance[None], grid, shape)[0]
    threshold = SHARE * scale.full
    colors = diverging() if scale.signed else sequential()
    yield fine >= threshold, colors[-1] if scale.signed else colors[BRIGHT]
    if scale.signed:
        yield -fine >= threshold, colors[0]


def outline(
    display: NDArray[np.uint8], regions: Iterator[tuple[Mask, NDArray[np.uint8]]], into: Rgb
) -> bool:
    """Draw the image in gray and a line along the inside of each region's edge.

    Returns
    -------
    bool
        Whether there was anything to surround.
    """
    plain(display, into)
    width = line_width(display.shape)
    found = False
    for inside, color in regions:
        into[_grown(inside, width) & ~inside] = DARK
        into[inside & _grown(~inside, width)] = color
        found |= bool(inside.any())
    return found


def line_width(shape: Sequence[int]) -> int:
    """Return how wide lines are on an image, shape ``(rows, columns, ...)``."""
    return max(1, round(min(shape[:2]) / PER_PIXEL))


def on_slice(box: Sequence[float], number: int) -> tuple[float, ...] | None:
    """Return what a box of a volume is on a slice, counted from 0; `None` where it is not on it."""
    first, last = slices_of(box)
    return (*box[1:3], *box[4:]) if first <= number <= last else None


def slices_of(box: Sequence[float]) -> tuple[int, int]:
    """Return the first and the last slice that a box of a volume is on, counted from 0."""
    first = round(box[0])
    return first, max(first, round(box[3]) - 1)


def frame(box: Sequence[float], into: Rgb) -> None:
    """Draw a white line along the inside of a box's edge, and a dark one about it.

    Parameters
    ----------
    box
        Top, left, bottom, right in pixels; what lies beyond the image is left out.
    """
    rows, columns = into.shape[:2]
    width = line_width(into.shape)
    for color, out in ((DARK, width), (WHITE, 0)):
        top, left = (max(0, round(each) - out) for each in box[:2])
        bottom, right = (round(each) + out for each in box[2:])
        bottom, right = min(bottom, rows), min(right, columns)
        into[top : top + width, left:right] = color
        into[max(0, bottom - width) : bottom, left:right] = color
        into[top:bottom, left : left + width] = color
        into[top:bottom, max(0, right - width) : right] = color


def _grown(mask: Mask, by: int) -> Mask:
    """Return the mask with all pixels that touch it, `by` times over."""
    grown = mask.copy()
    for _ in range(by):
        last = grown.copy()
        grown[1:] |= last[:-1]
        grown[:-1] |= last[1:]
        grown[:, 1:] |= last[:, :-1]
        grown[:, :-1] |= last[:, 1:]
    return grown
