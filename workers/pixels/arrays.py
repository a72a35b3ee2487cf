"""Arrays written piece by piece, so that no large copy of one is ever made."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import DTypeLike, NDArray


class ArrayWriter:
    """Writes an ``.npy`` file in C order from consecutive pieces.

    Parameters
    ----------
    path
        The file to write.
    shape
        Shape of the whole array.
    dtype
        Type of its elements.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._stream = path.open("wb")
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        npy_format.write_array_header_1_0(self._stream, header)

    def append(self, piece: NDArray[Any]) -> None:
        """Write the next elements."""
        self._stream.write(np.ascontiguousarray(piece, self._dtype).data)

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._stream.close()
