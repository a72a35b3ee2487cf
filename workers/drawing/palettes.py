"""Colors that carry numbers: even steps in value are even steps to the eye.

Colors are laid out in OKLCH, whose lightness, chroma and hue are even to the
eye, and turned into sRGB here. Positive evidence runs from dark violet over
red to light yellow, lightness rising throughout, so that it also reads in
gray. Signed evidence diverges: orange speaks for the target, blue against it,
both arms alike in lightness, and distinct to color-blind readers.

References
----------
Ottosson (2020). A perceptual color space for image processing (OKLab).
IEC 61966-2-1 (sRGB).
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

LEVELS = 256
OPAQUE = 168
"""Weight of the color, of 256, at full strength: anatomy stays visible below."""

FAINT = 0.06
"""Share of the full scale below which nothing is drawn."""

_LMS_FROM_LAB = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_RGB_FROM_LMS = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)

KNEE = 0.0031308
"""Where the standard's curve turns from straight to bent."""

Colors = NDArray[np.uint8]


def srgb(
    lightness: NDArray[np.float64], chroma: NDArray[np.float64], hue: NDArray[np.float64]
) -> Colors:
    """Turn OKLCH (hue in degrees) into 8-bit sRGB, shape ``(N, 3)``."""
    angle = np.deg2rad(hue)
    lab = np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], axis=-1)
    linear = np.clip((lab @ _LMS_FROM_LAB.T) ** 3 @ _RGB_FROM_LMS.T, 0, 1)
    low = 12.92 * linear
    high = 1.055 * linear ** (1 / 2.4) - 0.055
    return np.asarray(np.where(linear <= KNEE, low, high) * 255 + 0.5, np.uint8)


@cache
def sequential() -> Colors:
    """Return 256 colors from no evidence to the most, shape ``(256, 3)``."""
    t = np.linspace(0, 1, LEVELS)
    hue = np.interp(t, (0, 0.45, 1), (300, 380, 465))
    chroma = np.interp(t, (0, 0.45, 1), (0.12, 0.2, 0.15))
    return srgb(0.32 + 0.58 * t, chroma, hue)


@cache
def diverging() -> Colors:
    """Return 256 colors from most against over nothing to most for, shape ``(256, 3)``."""
    t = np.linspace(-1, 1, LEVELS)
    strength = np.abs(t)
    hue = np.where(t < 0, 250.0, 55.0)
    return srgb(0.86 - 0.2 * strength, 0.16 * strength, hue)


@cache
def weights(*, signed: bool) -> NDArray[np.uint16]:
    """Return the weight of the color, of 256, at each of the 256 levels.

    It grows with the strength of the evidence, fast at first: what is drawn
    at all can be seen.
    """
    strength = np.abs(np.linspace(-1 if signed else 0, 1, LEVELS))
    drawn = np.clip((strength - FAINT) / (1 - FAINT), 0, 1) ** 0.7
    return (drawn * OPAQUE + 0.5).astype(np.uint16)


@cache
def blend_table(*, signed: bool) -> NDArray[np.uint32]:
    """Return the blended color of each (level, gray) pair, shape ``(65536,)``.

    Index ``256 * level + gray``; an entry is four bytes R, G, B and nothing, which
    NumPy takes three times as fast as three. One look-up a pixel does color,
    transparency and blend at once.
    """
    colors = (diverging() if signed else sequential()).astype(np.uint32)
    weight = weights(signed=signed).astype(np.uint32)[:, None, None]
    gray = np.arange(LEVELS, dtype=np.uint32)[None, :, None]
    mixed = (colors[:, None, :] * weight + gray * (256 - weight) + 128) >> 8
    table = np.zeros((LEVELS, LEVELS, 4), np.uint8)
    table[..., :3] = np.minimum(mixed, 255)
    return table.view(np.uint32).reshape(-1)
