"""How much of an object is parsed at most: what is parsed takes a hundred times its room."""

from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, Final, cast

from pydicom import values
from pydicom.filereader import read_sequence
from pydicom.sequence import Sequence as Items
from pydicom.valuerep import VR

from service.errors.requests import TooLarge
from service.errors.studies import AbsurdDimensions

WORK = 1 << 20
"""What parsing up to the pixels may cost, and each sequence whose length is told, when it is asked
for: that of a read is 1."""

HEAD, ITEM, OUTER = 2, 8, 64
"""What an element's head costs, an item's, of which a data set is made, and what an element costs
more that is in no sequence: of those real objects have some hundreds."""

TOGETHER = 1 << 24
"""What parsing all objects of one upload may cost; elements in no sequence count as any other."""

LENGTH_OF_HEAD: Final = 8
ITEMS: Final = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
PREAMBLE: Final = 132
_PROBES = frozenset({1, 6, 8, PREAMBLE - 4})  # reads by which pydicom looks for the end


class _TooMuchError(Exception):
    """Ends a parse."""


@dataclass(slots=True)
class _Budget:
    """What is left to several objects."""

    left: int


_SHARED: ContextVar[_Budget | None] = ContextVar("shared", default=None)


@contextmanager
def together() -> Iterator[None]:
    """Bound what is parsed within: `TOGETHER` at most, or it is `TooLarge`."""
    token = _SHARED.set(_Budget(TOGETHER))
    try:
        yield
    finally:
        _SHARED.reset(token)


class Watched:
    """A file that remembers whether a read came back short, and what its reads cost."""

    def __init__(self, stream: BinaryIO, name: str = "") -> None:
        self._stream = stream
        self.name = name
        self.short = False
        self._left = WORK
        self._shared = _SHARED.get() or _Budget(TOGETHER)
        self.tell = stream.tell
        self.seek = stream.seek

    def read(self, size: int = -1) -> bytes:
        """Read like a file, as long as `WORK` lasts."""
        data = self._stream.read(size)
        cost = 1 if size != LENGTH_OF_HEAD else ITEM if data[:4] in ITEMS else HEAD
        self._shared.left -= cost
        self.spend(cost)
        if size > len(data) and (data or size not in _PROBES):
            self.short = True
        return data

    def spend(self, cost: int) -> None:
        """Take `cost` off what is left; end the parse where nothing is."""
        self._left -= cost
        if min(self._left, self._shared.left) < 0:
            raise _TooMuchError

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Tell too much as what it is: pydicom takes any failure to read for another.

        Raises
        ------
        AbsurdDimensions
            There are too many elements or items.
        TooLarge
            There are too many in all objects that are parsed `together`.
        """
        try:
            yield
        except Exception:
            if self._shared.left < 0:
                raise TooLarge(
                    "The objects of the upload have more elements and items than are read of one"
                    " upload; send them in several.",
                    limit=TOGETHER,
                ) from None
            if self._left < 0:
                raise AbsurdDimensions(
                    "The object has more elements, or items of sequences, than are read.",
                    limit=WORK // OUTER,
                ) from None
            raise


def _items(
    data: bytes,
    implicit: bool,
    little: bool,
    encodings: MutableSequence[str],
    offset: int = 0,
) -> Items:
    """Parse a sequence of known length, as pydicom does, within bounds."""
    watched = Watched(BytesIO(data))
    with watched.bounded():
        stream = cast(BinaryIO, watched)
        return read_sequence(stream, implicit, little, len(data), encodings, offset)


cast(dict[VR, Any], values.converters)[VR.SQ] = _items
