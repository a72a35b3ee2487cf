"""The raw map as a NumPy array: for programs."""

from pathlib import Path

import numpy as np
from typing_extensions import override

from workers.formats.base import FORMATS, Format
from workers.formats.sheet import Sheet


@FORMATS.register("npy")
class Npy(Format):
    """Raw signed values, float32, shape ``(C, [slices,] rows, columns)`` of the grid asked for."""

    title = "Raw map as NPY"
    media_type = "application/x-npy"
    extension = "npy"

    @override
    def write(self, sheet: Sheet, to: Path) -> None:
        values, _ = sheet.array
        np.save(to, np.ascontiguousarray(values, np.float32), allow_pickle=False)
