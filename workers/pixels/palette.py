"""PALETTE COLOR: three look-up tables from one stored value to RGB."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from service.errors.studies import UnsupportedImage

BYTE = 8


def colors(values: NDArray[Any], dataset: Dataset) -> tuple[NDArray[np.uint8], int]:
    """Return RGB of shape ``(rows, columns, 3)`` and its bits (8).

    Raises
    ------
    UnsupportedImage
        A table is missing or damaged.
    """
    try:
        rgb = apply_color_lut(values, dataset)
        bits = int(dataset["RedPaletteColorLookupTableDescriptor"].value[2])
    except Exception as error:
        raise UnsupportedImage("The image's palette is missing or cannot be read.") from error
    reduced = rgb >> (bits - BYTE) if bits > BYTE else rgb
    return reduced.astype(np.uint8), BYTE
