"""Pixel padding: pixels that were added and never seen by the detector."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.dicom.header import Header

Mask = NDArray[np.bool_]


def padding_of(stored: NDArray[Any], dataset: Dataset, header: Header) -> Mask | None:
    """Return a mask of padded pixels, shape ``(rows, columns)``, if there is one.

    Pixel Padding Value alone names one stored value; together with Pixel
    Padding Range Limit it names a range (PS3.3 C.7.5.1.1.2).
    """
    value = _stored_value(dataset, "PixelPaddingValue", header)
    if value is None or header.samples_per_pixel != 1:
        return None
    limit = _stored_value(dataset, "PixelPaddingRangeLimit", header)
    low, high = sorted((value, value if limit is None else limit))
    padded = stored == value if low == high else (stored >= low) & (stored <= high)
    return padded if padded.any() else None


def _stored_value(dataset: Dataset, keyword: str, header: Header) -> int | None:
    """Return a stored value, read with the sign of the pixels whatever its VR was."""
    try:
        value = int(dataset[keyword].value)
    except (KeyError, TypeError, ValueError):
        return None
    if header.pixel_representation == 0:
        return value % (1 << header.bits_allocated)
    return (
        value - (1 << header.bits_allocated) if value >> (header.bits_allocated - 1) == 1 else value
    )
