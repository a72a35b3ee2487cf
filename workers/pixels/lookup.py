"""DICOM look-up tables: descriptor and data, whatever form they came in."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.dicom.dataset import value_of
from service.errors.studies import UnsupportedImage

ENTRIES = 65536
"""What a descriptor's zero stands for (PS3.3 C.11.1.1.1)."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A look-up table.

    Attributes
    ----------
    first
        The input value of the first entry; smaller ones take its output.
    data
        Outputs, shape ``(entries,)``.
    bits
        Bits of each output.
    """

    first: int
    data: NDArray[np.uint16]
    bits: int

    def take(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Look up `values`; those beyond an end take the end's output."""
        last = self.first + len(self.data) - 1
        index = np.clip(values, self.first, last).astype(np.int32) - self.first
        outputs: NDArray[np.uint16] = self.data[index]
        return outputs


def table(dataset: Dataset, descriptor: str, data: str, *, signed: bool) -> Table:
    """Read a table by the keywords of its descriptor and of its data.

    Raises
    ------
    UnsupportedImage
        The table is missing, or shorter than its descriptor says.
    """
    try:
        entries, first, bits = (int(each) for each in value_of(dataset, descriptor))
        count = (entries & 0xFFFF) or ENTRIES
        outputs = _outputs(value_of(dataset, data), count, dataset.original_encoding[1])
    except (ArithmeticError, TypeError, ValueError) as error:
        raise UnsupportedImage("A look-up table of the image cannot be read.") from error
    first = _signed(first & 0xFFFF) if signed else first & 0xFFFF
    if len(outputs) < count:
        raise UnsupportedImage("A look-up table of the image is shorter than it says.")
    return Table(first, outputs[:count], bits if bits in range(1, 17) else 16)


def _signed(word: int) -> int:
    return word - 65536 if word > 32767 else word  # noqa: PLR2004 - two's complement


def _outputs(value: Any, count: int, little: bool | None) -> NDArray[np.uint16]:
    """Return the outputs of a table that came as words, bytes or numbers."""
    if not isinstance(value, bytes):
        return (np.atleast_1d(np.asarray(value, np.int64)) & 0xFFFF).astype(np.uint16)
    if len(value) in {count, count + 1} and count > 1:
        return np.frombuffer(value, np.uint8).astype(np.uint16)
    order = "<" if little is not False else ">"
    return np.frombuffer(value[: len(value) // 2 * 2], f"{order}u2").astype(np.uint16)
