"""PALETTE COLOR: three look-up tables from one stored value to RGB."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from service.errors.studies import UnsupportedImage
from workers.pixels.lookup import table

BYTE = 8
COLORS: Final = ("Red", "Green", "Blue")
MISNAMED: Final = "contradicted_palette_bits"
"""Warning of a palette whose entries have other bits than its descriptor says."""


def colors(
    values: NDArray[Any], dataset: Dataset, *, signed: bool
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Return RGB of 8 bits, shape ``(rows, columns, 3)``, and codes of what is doubtful.

    Parameters
    ----------
    signed
        Whether stored values are.

    Raises
    ------
    UnsupportedImage
        A table is missing or damaged.
    """
    if "RedPaletteColorLookupTableData" not in dataset:
        return _of_segments(values, dataset), ()
    tables = [
        table(
            dataset,
            f"{color}PaletteColorLookupTableDescriptor",
            f"{color}PaletteColorLookupTableData",
            signed=signed,
        )
        for color in COLORS
    ]
    said, top = tables[0].bits, max(int(each.data.max()) for each in tables)
    bits = BYTE if top >> BYTE == 0 else 2 * BYTE if top >> said else said
    rgb = np.stack([each.take(values) for each in tables], axis=-1)
    return (rgb >> bits - BYTE).astype(np.uint8), (MISNAMED,) if bits != said else ()


def _of_segments(values: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    """Return RGB by tables that are made of segments (PS3.3 C.7.9.2)."""
    try:
        rgb = apply_color_lut(values, dataset)
        bits = int(dataset["RedPaletteColorLookupTableDescriptor"].value[2])
    except Exception as error:
        raise UnsupportedImage("The image's palette is missing or cannot be read.") from error
    return np.asarray(rgb >> bits - BYTE if bits > BYTE else rgb, np.uint8)
