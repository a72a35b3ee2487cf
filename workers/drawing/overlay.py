"""The source image with the evidence drawn over it, at source resolution."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.domain.grid import Grid
from workers.drawing.palettes import FAINT, LEVELS, blend_table
from workers.drawing.resample import resampling
from workers.percentiles import percentiles

Rgb = NDArray[np.uint8]
DETAILED = 1024
"""Cells from which on single ones are not let set the scale."""

ROBUST = 99.5
BLOCK = 16
"""Rows drawn at a time."""

LUMA = np.array([77, 150, 29], np.uint16)  # ITU-R BT.601, of 256


@dataclass(frozen=True, slots=True)
class Scale:
    """How values become strength of color.

    Attributes
    ----------
    full
        The value drawn at full strength; larger ones are drawn alike.
    signed
        Whether values below zero are drawn.
    own
        Whether `full` is this map's own, and not that of the model's usual maps.
    faint
        Whether nothing of the map is strong enough to be drawn.
    joint
        Whether `full` is that of several views, each with a map of its own.
    """

    full: float
    signed: bool
    own: bool = True
    faint: bool = False
    joint: bool = False


def joint_scale(
    relevance: NDArray[np.float32], full: float | None, *, signed: bool
) -> Scale | None:
    """Return the scale of all views for the map of one; `None` when it holds no evidence."""
    own = own_full(relevance, signed=signed)
    if own is None or full is None:
        return None
    return Scale(full, signed, own=False, faint=own < FAINT * full, joint=True)


def scale_of(
    relevance: NDArray[np.float32], *, signed: bool, reference: float | None = None
) -> Scale | None:
    """Choose the scale of a map, shape ``grid.shape``; `None` when nothing can be drawn.

    Full strength is the `reference` of the model's usual maps, so that a map
    of little evidence looks faint. Without one it is the map's own.
    """
    own = own_full(relevance, signed=signed)
    if own is None:
        return None
    if reference is None:
        return Scale(own, signed)
    return Scale(reference, signed, own=False, faint=own < FAINT * reference)


def own_full(relevance: NDArray[np.float32], *, signed: bool) -> float | None:
    """Return a map's own full strength; `None` when it holds no evidence.

    It is the largest magnitude; in maps of many cells the 99.5th percentile of
    the magnitudes, lest one pixel leaves all others faint.
    """
    strength = np.abs if signed else partial(np.maximum, np.float32(0))
    full = float(strength(np.array([relevance.min(), relevance.max()], np.float32)).max())
    if relevance.size >= DETAILED:
        (robust,) = percentiles(relevance.reshape(-1), (ROBUST,), of=strength)
        full = robust or full
    return full if np.isfinite(full) and full > 0 else None


def overlay(
    display: NDArray[np.uint8], relevance: NDArray[np.float32], grid: Grid, scale: Scale, into: Rgb
) -> None:
    """Draw `relevance` over `display`.

    Parameters
    ----------
    display
        Brightness ``(rows, columns)``, or RGB, which is turned to gray so
        that no color but the evidence's is seen.
    relevance
        The map on its own grid, shape ``grid.shape``.
    into
        Where to draw, shape ``(rows, columns, 3)``.

    Notes
    -----
    A few rows at a time: what is worked on stays in the processor's cache,
    three times as fast as one step after the other over the whole image.
    """
    rows, columns = resampling(grid, (display.shape[0], display.shape[1]))
    factor = (127.5 if scale.signed else 255.0) / scale.full
    wide = (relevance @ columns.T) * np.float32(factor)
    middle = np.float32(128.0 if scale.signed else 0.5)  # with the half that rounds
    table = blend_table(signed=scale.signed)
    inside = -middle <= wide.min() and wide.max() < LEVELS - middle  # and all that lies between
    for start in range(0, len(display), BLOCK):
        part = slice(start, start + BLOCK)
        shares = rows[part]
        near = np.flatnonzero(shares.any(axis=0))  # the few rows of cells that reach these
        levels = shares[:, near] @ wide[near]
        levels += middle
        if not inside:
            np.clip(levels, 0, LEVELS - 1, out=levels)
        index = levels.astype(np.uint16)
        index <<= 8
        index |= gray(display[part])
        _lay(table.take(index, mode="wrap"), into[part])  # the quickest mode; nothing wraps


def _lay(pixels: NDArray[np.uint32], into: Rgb) -> None:
    """Lay pixels of four bytes three bytes apart: NumPy moves four at once, three one by one.

    They are laid from the first to the last, each over the fourth byte of the one before.
    """
    whole = into if into.flags.c_contiguous else np.empty(into.shape, np.uint8)
    line = pixels.reshape(-1)
    np.ndarray(line.size - 1, np.uint32, whole, strides=(3,))[:] = line[:-1]
    whole.reshape(-1)[-3:] = line[-1:].view(np.uint8)[:3]
    if whole is not into:
        into[:] = whole


def plain(display: NDArray[np.uint8], into: Rgb) -> None:
    """Draw the image without any evidence, in shades of gray."""
    into[:] = gray(display)[..., None]


def gray(display: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return brightness, shape ``(rows, columns)``."""
    if display.ndim == 2:  # noqa: PLR2004 - gray already
        return display
    weighted = (display * LUMA).sum(-1, dtype=np.uint16)
    return np.asarray(weighted >> 8, np.uint8)
