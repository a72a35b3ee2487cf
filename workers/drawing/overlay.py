"""The source image with the evidence drawn over it, at source resolution."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workers.drawing.palettes import blend_table

Rgb = NDArray[np.uint8]
DETAILED = 1024
"""Cells from which on single ones are not let set the scale."""

ROBUST = 99.5
LUMA = np.array([77, 150, 29], np.uint16)  # ITU-R BT.601, of 256


@dataclass(frozen=True, slots=True)
class Scale:
    """How values become strength of color.

    Attributes
    ----------
    full
        The value drawn at full strength; larger ones are drawn alike.
    signed
        Whether values below zero are drawn, as evidence against.
    """

    full: float
    signed: bool


def scale_of(relevance: NDArray[np.float32], *, signed: bool) -> Scale | None:
    """Choose the scale of a map, shape ``grid.shape``; `None` when nothing can be drawn.

    Full strength is the largest magnitude; in maps of many cells the 99.5th
    percentile of the magnitudes, lest one pixel leaves all others faint.
    """
    strength = np.abs(relevance) if signed else np.maximum(relevance, 0)
    full = float(strength.max())
    if relevance.size >= DETAILED:
        robust = float(np.percentile(strength, ROBUST))
        full = robust or full
    return Scale(full, signed) if np.isfinite(full) and full > 0 else None


def overlay(display: NDArray[np.uint8], relevance: NDArray[np.float32], scale: Scale) -> Rgb:
    """Draw `relevance` over `display`, both of the source's rows and columns.

    Parameters
    ----------
    display
        Brightness ``(rows, columns)``, or RGB, which is turned to gray so
        that no color but the evidence's is seen.

    Returns
    -------
    Rgb
        Shape ``(rows, columns, 3)``.
    """
    levels = relevance * np.float32(127.5 / scale.full if scale.signed else 255 / scale.full)
    levels += np.float32(128.0 if scale.signed else 0.5)  # with the half that rounds
    np.clip(levels, 0, 255, out=levels)
    index = levels.astype(np.uint16)
    index <<= 8
    index |= gray(display)
    return unpack(blend_table(signed=scale.signed)[index])


def plain(display: NDArray[np.uint8]) -> Rgb:
    """Return the image without any evidence, as RGB in shades of gray."""
    return np.repeat(gray(display)[..., None], 3, axis=-1)


def gray(display: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return brightness, shape ``(rows, columns)``."""
    if display.ndim == 2:  # noqa: PLR2004 - gray already
        return display
    weighted = (display * LUMA).sum(-1, dtype=np.uint16)
    return np.asarray(weighted >> 8, np.uint8)


def unpack(packed: NDArray[np.uint32]) -> Rgb:
    """Turn packed R, G, B, 0 into RGB of shape ``(rows, columns, 3)``."""
    rows, columns = packed.shape
    image = Image.frombuffer("RGBX", (columns, rows), packed.tobytes(), "raw", "RGBX", 0, 1)
    return np.asarray(image.convert("RGB"))
