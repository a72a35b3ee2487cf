"""The image as a viewer shows it: 8 bits, values of interest, black is black."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.dicom.header import Header
from workers.pixels.padding import Mask
from workers.pixels.voi import Voi, Window, percentile_window, window_between

BYTE = 8


def show_gray(
    values: NDArray[np.float32], voi: Voi | None, padding: Mask | None, header: Header
) -> tuple[NDArray[np.uint8], Voi]:
    """Map modality values to brightness.

    Parameters
    ----------
    values
        Modality values, shape ``(rows, columns)``.
    voi
        The image's own values of interest; without them 8-bit images are
        shown in full and others between two percentiles.
    padding
        Padded pixels, shown black.
    header
        Tells of MONOCHROME1, which is inverted here and nowhere else.

    Returns
    -------
    tuple
        Brightness, shape ``(rows, columns)``, and the values of interest used.
    """
    used = voi or _fallback(values, padding, header)
    shown = used.show(values)
    shown += np.float32(0.5)  # rounds, where the cast below cuts off
    brightness = shown.astype(np.uint8)
    if header.photometric_interpretation == "MONOCHROME1":
        np.subtract(255, brightness, out=brightness)
    if padding is not None:
        brightness[padding] = 0
    return brightness, used


def _fallback(values: NDArray[np.float32], padding: Mask | None, header: Header) -> Window:
    if header.bits_stored <= BYTE:
        return window_between(0.0, float((1 << header.bits_stored) - 1))
    seen = values if padding is None else values[~padding]
    return percentile_window(seen if seen.size else values)


def show_color(rgb: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Bring RGB of `bits` a sample to 8 bits."""
    if bits > BYTE:
        return (rgb >> (bits - BYTE)).astype(np.uint8)
    return np.ascontiguousarray(rgb, np.uint8)
