"""Pixel padding: pixels that were added and never seen by the detector."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.dicom.dataset import value_of
from service.dicom.header import Header
from workers.pixels.modality import real

Mask = NDArray[np.bool_]
LARGEST = float(np.finfo(np.float32).max)


def padding_of(stored: NDArray[Any], dataset: Dataset, header: Header) -> Mask | None:
    """Return a mask of padded pixels, shape ``(rows, columns)``, if there is one.

    Pixel Padding Value alone names one stored value; together with Pixel
    Padding Range Limit it names a range (PS3.3 C.7.5.1.1.2). Of floating-point
    pixels those that are no finite number are padding too.
    """
    if stored.dtype.kind == "f":
        return _padding_of_reals(stored, dataset)
    ends = _ends(dataset, header)
    return None if ends is None else _between(stored, *ends)


def padding_above(words: NDArray[Any], dataset: Dataset, header: Header) -> Mask | None:
    """Return a mask of pixels whose whole word is padding, where Bits Stored cannot hold that.

    Scanners put -2000 around images of 12 bits; with the bits above cleared it is a value as any.

    Parameters
    ----------
    words
        Pixels before any bit of theirs is cleared, shape ``(rows, columns)``.
    """
    ends = _ends(dataset, header)
    if ends is None:
        return None
    signed = header.pixel_representation
    low, high = -signed << (header.bits_stored - 1), 1 << (header.bits_stored - signed)
    if low <= min(ends) and max(ends) < high:
        return None
    whole = words.astype(words.dtype.newbyteorder("="), copy=False)
    return _between(whole.view(f"{'i' if signed else 'u'}{whole.dtype.itemsize}"), *ends)


def _ends(dataset: Dataset, header: Header) -> tuple[int, int] | None:
    """Return the least and the greatest stored value of padding, where any is named."""
    value = _stored_value(dataset, "PixelPaddingValue", header)
    if value is None or header.samples_per_pixel != 1:
        return None
    limit = _stored_value(dataset, "PixelPaddingRangeLimit", header)
    other = value if limit is None else limit
    return min(value, other), max(value, other)


def _between(stored: NDArray[Any], low: int, high: int) -> Mask | None:
    padded = stored == low if low == high else (stored >= low) & (stored <= high)
    return padded if padded.any() else None


def _padding_of_reals(stored: NDArray[Any], dataset: Dataset) -> Mask | None:
    kind = "DoubleFloat" if stored.dtype.itemsize == 8 else "Float"  # noqa: PLR2004 - bytes
    padded = np.asarray(~np.isfinite(stored))
    value = real(dataset, f"{kind}PixelPaddingValue")
    if value is not None:
        limit = real(dataset, f"{kind}PixelPaddingRangeLimit")
        low, high = sorted((value, value if limit is None else limit))
        padded |= (stored >= low) & (stored <= high)
    return padded if padded.any() else None


def without_holes(stored: NDArray[Any], padding: Mask | None) -> NDArray[Any]:
    """Return floating-point pixels with the least of the seen ones for padding float32 lacks."""
    if padding is None:
        return stored
    least = 0.0 if padding.all() else stored[~padding].min()
    holes = padding & ~(np.abs(stored) <= LARGEST)
    return np.where(holes, np.asarray(least, stored.dtype), stored)


def _stored_value(dataset: Dataset, keyword: str, header: Header) -> int | None:
    """Return a stored value, read with the sign of the pixels whatever its VR was."""
    try:
        value = int(value_of(dataset, keyword))
    except (ArithmeticError, TypeError, ValueError):
        return None
    if header.pixel_representation == 0:
        return value % (1 << header.bits_allocated)
    return (
        value - (1 << header.bits_allocated) if value >> (header.bits_allocated - 1) == 1 else value
    )
