"""The image as a viewer shows it: 8 bits, values of interest, black is black."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.dicom.dataset import value_of
from service.dicom.header import Header
from workers.pixels.modality import Modality
from workers.pixels.padding import Mask
from workers.pixels.voi import Voi, Window, percentile_window, sampled, window_between

BYTE = 8
INVERTED = "MONOCHROME1"
SHAPES = {"IDENTITY": False, "INVERSE": True}
"""Presentation LUT Shape: whether it turns brightness over (PS3.3 C.11.6.1.2)."""


def is_inverted(dataset: Dataset, header: Header) -> bool:
    """Tell whether the least value is white: by the Presentation LUT Shape, else MONOCHROME1."""
    shape = str(value_of(dataset, "PresentationLUTShape") or "").strip()
    return SHAPES.get(shape, header.photometric_interpretation == INVERTED)


def show_gray(
    values: NDArray[np.float32], voi: Voi, padding: Mask | None, *, inverted: bool
) -> NDArray[np.uint8]:
    """Map modality values to brightness, both of any shape.

    Parameters
    ----------
    voi
        The values of interest.
    padding
        Padded pixels, shown black.
    inverted
        Whether the least value is white; it is turned over here and nowhere else.
    """
    shown = voi.show(values)
    shown += np.float32(0.5)  # rounds, where the cast below cuts off
    brightness = shown.astype(np.uint8)
    if inverted:
        np.subtract(255, brightness, out=brightness)
    if padding is not None:
        brightness[padding] = 0
    return brightness


def chosen_window(
    stored: NDArray[Any], modality: Modality, padding: Mask | None, bits: int
) -> Window:
    """Choose a window for an image that brings none.

    Images of 8 bits or less are shown in full, from the least value that their
    bits and sign can hold to the greatest; others between two percentiles of
    what is no padding.
    """
    if bits <= BYTE:
        least = -(1 << bits - 1) if stored.dtype.kind == "i" else 0
        return window_between(*modality.range(least, least + (1 << bits) - 1))
    seen = stored if padding is None or padding.all() else stored[~padding]
    return percentile_window(modality.apply(sampled(seen)))


def show_color(rgb: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Bring RGB of `bits` a sample to 8 bits."""
    if bits > BYTE:
        return (rgb >> (bits - BYTE)).astype(np.uint8)
    return np.ascontiguousarray(rgb, np.uint8)
