"""Modality values: stored values in the units the modality measures."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from service.dicom.dataset import items_of, value_of
from service.errors.studies import UnsupportedImage
from workers.pixels.lookup import Table, table


@dataclass(frozen=True, slots=True, eq=False)
class Modality:
    """The transform from stored to modality values (PS3.3 C.11.1).

    Attributes
    ----------
    slope, intercept
        Rescale, where there is no table.
    table
        Modality LUT, which takes the place of the rescale.
    declared
        Whether the image says any of these.
    """

    slope: float = 1.0
    intercept: float = 0.0
    table: Table | None = None
    declared: bool = False

    @property
    def identity(self) -> bool:
        """Whether modality values are the stored values."""
        return self.table is None and (self.slope, self.intercept) == (1.0, 0.0)

    def apply(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 modality values of the shape of `stored`."""
        if self.table is not None:
            return self.table.take(stored).astype(np.float32)
        whole = self.slope.is_integer() and self.intercept.is_integer()
        if stored.dtype.itemsize > 2 or not whole:  # noqa: PLR2004 - else float32 is exact
            exact = stored * np.float64(self.slope) + self.intercept
            return exact.astype(np.float32)
        values = stored.astype(np.float32)
        if not self.identity:
            values *= np.float32(self.slope)
            values += np.float32(self.intercept)
        return values

    def range(self, low: float, high: float) -> tuple[float, float]:
        """Return the modality values that stored values in ``[low, high]`` can take."""
        if self.table is not None:
            return float(self.table.data.min()), float(self.table.data.max())
        ends = (low * self.slope + self.intercept, high * self.slope + self.intercept)
        return min(ends), max(ends)


def modality_of(dataset: Dataset, *, signed: bool) -> Modality:
    """Read the Modality LUT, else the rescale; without either it is the identity.

    Raises
    ------
    UnsupportedImage
        There is a Modality LUT or a rescale, and it cannot be read; the rescale is half of one, or
        makes all values the same.
    """
    if (item := table_item(dataset, "ModalityLUTSequence")) is not None:
        data = table(item, "LUTDescriptor", "LUTData", signed=signed)
        return Modality(table=data, declared=True)
    if not any(_filled(dataset, each) for each in ("RescaleSlope", "RescaleIntercept")):
        return Modality()
    slope, intercept = _single(dataset, "RescaleSlope"), _single(dataset, "RescaleIntercept")
    if not slope or intercept is None:
        raise UnsupportedImage(
            "The image's rescale is not one slope other than 0 and one intercept, so its values"
            " mean nothing; send the image with both, or with neither."
        )
    return Modality(slope, intercept, declared=True)


def _single(dataset: Dataset, keyword: str) -> float | None:
    """Return the value of a decimal attribute, if it is one finite number."""
    several = isinstance(value_of(dataset, keyword), MultiValue)
    return None if several else real(dataset, keyword)


def _filled(dataset: Dataset, keyword: str) -> bool:
    """Tell whether an attribute has a value, of whatever form."""
    value = dataset.get_item(keyword).value if keyword in dataset else None
    if isinstance(value, bytes):
        value = value.strip(b" \0")
    return value not in (None, "", b"")


def real(dataset: Dataset, keyword: str) -> float | None:
    """Return the first value of a decimal attribute, if it is a finite number."""
    value = value_of(dataset, keyword)
    try:
        first = value if isinstance(value, int | float | str) or value is None else value[0]
        number = None if first is None else float(first)
    except (ArithmeticError, IndexError, TypeError, ValueError):
        return None
    return number if number is not None and math.isfinite(number) else None


def table_item(dataset: Dataset, sequence: str) -> Dataset | None:
    """Return the item of a look-up table sequence, unless it holds no data."""
    item = next(iter(items_of(dataset, sequence)), None)
    return None if item is None or value_of(item, "LUTData") in (None, b"", "") else item
