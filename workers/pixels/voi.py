"""Values of interest: which modality values are shown between black and white."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.dicom.dataset import value_of
from service.errors.studies import UnsupportedImage
from workers.pixels.lookup import Table, table
from workers.pixels.modality import real, table_item

WHITE = 255.0
SAMPLE = 1 << 18
SHAPES = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True, slots=True)
class Window:
    """A window on modality values (PS3.3 C.11.2.1.2).

    `center` and `width` are in modality units; `shape` is one of `SHAPES`.
    """

    center: float
    width: float
    shape: str = "LINEAR"

    def show(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return brightness between 0 and 255."""
        if self.shape == "SIGMOID":
            steepness = -4.0 * (values - self.center) / self.width
            return np.asarray(WHITE / (1.0 + np.exp(np.clip(steepness, -80, 80))), np.float32)
        exact = self.shape == "LINEAR_EXACT"
        width = self.width if exact else max(self.width - 1.0, 1e-6)
        center = self.center if exact else self.center - 0.5
        scale = WHITE / width
        shown: NDArray[np.float32] = values * np.float32(scale)
        shown += np.float32(WHITE / 2 - center * scale)
        np.clip(shown, 0.0, WHITE, out=shown)
        return shown


@dataclass(frozen=True, slots=True, eq=False)
class VoiTable:
    """A VOI LUT."""

    table: Table

    def show(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return brightness between 0 and 255."""
        top = float((1 << self.table.bits) - 1)
        shown = self.table.take(np.rint(values)) * np.float32(WHITE / top)
        return np.asarray(np.minimum(shown, WHITE), np.float32)


Voi = Window | VoiTable


def voi_of(dataset: Dataset, *, signed: bool) -> Voi | None:
    """Read the image's own VOI: the table, else the first window; `None` without one."""
    if (item := table_item(dataset, "VOILUTSequence")) is not None:
        try:
            return VoiTable(table(item, "LUTDescriptor", "LUTData", signed=signed))
        except UnsupportedImage:
            pass  # display only: a broken table falls back to the window
    center, width = real(dataset, "WindowCenter"), real(dataset, "WindowWidth")
    shape = str(value_of(dataset, "VOILUTFunction") or "LINEAR").strip()
    least = 1.0 if shape == "LINEAR" else math.ulp(1.0)
    if center is None or width is None or width < least or shape not in SHAPES:
        return None
    return Window(center, width, shape)


def window_between(low: float, high: float) -> Window:
    """Return the window that shows `low` black and `high` white."""
    return Window((low + high) / 2, max(high - low, 1e-6), "LINEAR_EXACT")


def percentile_window(values: NDArray[Any], low: float = 0.5, high: float = 99.5) -> Window:
    """Return the window between two percentiles of `values` (any shape, not empty)."""
    ends = np.percentile(values, (low, high))
    return window_between(float(ends[0]), float(ends[1]))


def sampled(values: NDArray[Any]) -> NDArray[Any]:
    """Return every n-th of `values`, at most 2^18 of them: enough to choose a window by."""
    flat = values.reshape(-1)
    return flat[:: max(1, -(-flat.size // SAMPLE))]
