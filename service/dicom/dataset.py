"""A DICOM file as its data set and the place of its pixels, nothing decoded.

pydicom parses; what is ours is that it stays silent (its messages quote
values of the data set), that a deflated object cannot swell without bound,
and that an object which ends too early is told from one without an image.
"""

import logging
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from pydicom import charset, config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.sequence import Sequence as Items
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from service.archive import HEAD, is_archive_head
from service.dicom import syntaxes
from service.dicom.bounds import OUTER, PREAMBLE, Watched
from service.errors.base import WhylightError
from service.errors.studies import AbsurdDimensions, NotDicom, TruncatedDicom

UNDEFINED: Final = 0xFFFFFFFF
PIXEL_DATA, DOUBLE_FLOAT, FLOAT = 0x7FE00010, 0x7FE00009, 0x7FE00008
PIXEL_TAGS = frozenset({PIXEL_DATA, DOUBLE_FLOAT, FLOAT})
DEFERRED = 1 << 20
"""Elements above this size are skipped: nothing that is read is so large."""

HEADER_ROOM = 64 << 20
"""What a deflated object may hold beside its pixels, in bytes."""

FRAGMENTS = 1 << 18
"""Most fragments of one object's pixels."""

CHUNK = 1 << 20
_FIRST_GROUPS = frozenset({0x0002, 0x0008})

ARCHIVE = "The bytes are an archive or a compressed file, which is not opened: unpack it first."
NOT_DICOM = "The bytes are not a DICOM object; send DICOM files, a form or a zip of them."

LATIN_9: Final = "iso8859_15"
"""Character set 203, which the standard has had since 2023 (PS3.3 C.12.1.1.2), pydicom not yet."""

charset.python_encoding |= {"ISO_IR 203": LATIN_9, "ISO 2022 IR 203": LATIN_9}
charset.CODES_TO_ENCODINGS[b"\x1b-b"], charset.ENCODINGS_TO_CODES[LATIN_9] = LATIN_9, b"\x1b-b"
config.settings.reading_validation_mode = config.IGNORE
config.settings.writing_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixel data element lies in `Parsed.stream`."""

    tag: int
    start: int
    """First byte of the element."""

    offset: int
    """First byte of the value."""

    vr: str
    """Value representation; empty where the syntax leaves it implicit."""

    length: int
    """Declared length of the value, or `UNDEFINED`."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A data set without its pixels, and the stream that holds them."""

    dataset: Dataset
    transfer_syntax_uid: str
    """As declared; where that lacks, or is of other elements than these, as recognized."""

    pixels: PixelElement | None
    stream: BinaryIO
    size: int
    """Length of `stream` in bytes."""

    guessed: bool = False
    """Whether the transfer syntax was recognized by the elements' looks."""

    contradicted: bool = False
    """Whether elements have a VR, or none, other than the declared transfer syntax says."""

    flattened: bool = False
    """Whether the data set was changed to be one frame's (`service.dicom.frames.flatten`)."""

    overruled: bool = False
    """Whether it then held other values than the frame's functional groups."""


class _Stop:
    """Ends the parse at the pixel data and remembers what stood there.

    pydicom asks at an element's value; where that is, it alone knows, because it reads elements
    as they are encoded and not as the file says that they are.
    """

    def __init__(self, stream: Watched) -> None:
        self._stream = stream
        self.found: PixelElement | None = None

    def __call__(self, tag: Any, vr: str | None, length: int) -> bool:
        """Tell whether to stop before this element, which is in no sequence."""
        self._stream.spend(OUTER)
        if int(tag) not in PIXEL_TAGS:
            return False
        at = self._stream.tell()
        start = at - (12 if vr in EXPLICIT_VR_LENGTH_32 else 8)
        self.found = PixelElement(int(tag), start, at, vr or "", length)
        return True


@contextmanager
def parsed(file: Path, *, max_samples: int) -> Iterator[Parsed]:
    """Open a DICOM file, parse it up to its pixels, and close it at the end.

    Parameters
    ----------
    file
        The object, with or without preamble and file meta information.
    max_samples
        Most samples an image may have; bounds what a deflated object may
        swell to.

    Raises
    ------
    NotDicom
        The bytes are no DICOM object.
    TruncatedDicom
        The object ends within an element, or its elements cannot be read.
    AbsurdDimensions
        A deflated object swells over the limit, or there are too many elements.
    """
    with file.open("rb") as stream:
        magic = _looks_like_dicom(stream)
        try:
            inner = _parse(stream, file, max_samples)
        except WhylightError:
            raise
        except Exception as error:
            raise _unreadable(magic) from error
        try:
            yield inner
        finally:
            if inner.stream is not stream:
                inner.stream.close()


def _unreadable(magic: bool) -> WhylightError:
    if magic:
        return TruncatedDicom("The object's elements cannot be read: it is damaged or cut short.")
    return NotDicom(NOT_DICOM)


def _looks_like_dicom(stream: BinaryIO) -> bool:
    """Tell a Part 10 file; refuse what is not even a bare data set."""
    head = stream.read(HEAD)
    stream.seek(0)
    if head[PREAMBLE - 4 : PREAMBLE] == b"DICM":
        return True
    if is_archive_head(head):
        raise NotDicom(ARCHIVE)
    groups = {int.from_bytes(head[:2], order) for order in ("little", "big")}
    if len(head) < PREAMBLE or not groups & _FIRST_GROUPS:
        raise NotDicom(NOT_DICOM)
    return False


def _parse(stream: BinaryIO, file: Path, max_samples: int) -> Parsed:
    meta = _meta(stream)
    if meta.get("TransferSyntaxUID") == syntaxes.DEFLATED:
        return _parse_deflated(stream, meta, max_samples)
    stream.seek(0)
    watched = Watched(stream, str(file))
    stop = _Stop(watched)
    with watched.bounded():
        dataset = read_partial(cast(BinaryIO, watched), stop, defer_size=DEFERRED, force=True)
    uid = str(dataset.file_meta.get("TransferSyntaxUID") or "")
    found = _finish(dataset, uid, watched, stop, stream)
    return found if uid else replace(found, guessed=True, contradicted=False)


def _meta(stream: BinaryIO) -> FileMetaDataset:
    """Read the file meta information, and nothing behind it; empty where it lacks."""
    if stream.read(PREAMBLE)[PREAMBLE - 4 :] != b"DICM":
        return FileMetaDataset()
    watched = Watched(stream)
    with watched.bounded():
        meta = read_dataset(
            cast(BinaryIO, watched), False, True, stop_when=partial(_after_meta, watched)
        )
    return FileMetaDataset(meta)


def _after_meta(watched: Watched, tag: Any, *_: object) -> bool:
    watched.spend(OUTER)
    return int(tag) >> 16 != 2  # noqa: PLR2004 - the meta group


def _recognized(implicit: bool, little: bool) -> str:
    """Name the uncompressed syntax of these elements."""
    if implicit:
        return syntaxes.IMPLICIT_LITTLE
    return syntaxes.EXPLICIT_LITTLE if little else syntaxes.EXPLICIT_BIG


def _parse_deflated(stream: BinaryIO, meta: FileMetaDataset, max_samples: int) -> Parsed:
    """Inflate what follows the meta information into a file that is gone once it is closed.

    It has a name, by which pydicom finds elements that were deferred.
    """
    inflated = cast(BinaryIO, tempfile.NamedTemporaryFile())  # noqa: SIM115 - closed by `parsed`
    try:
        _inflate(stream, inflated, HEADER_ROOM + 4 * max_samples)
        watched = Watched(inflated, inflated.name)
        stop = _Stop(watched)
        with watched.bounded():
            read = read_dataset(
                cast(BinaryIO, watched),
                is_implicit_VR=False,
                is_little_endian=True,
                stop_when=stop,
                defer_size=DEFERRED,
            )
        dataset = FileDataset(inflated.name, read, file_meta=meta, is_implicit_VR=False)
        dataset.set_original_encoding(False, True, read.original_character_set)
        return _finish(dataset, syntaxes.DEFLATED, watched, stop, inflated)
    except BaseException:
        inflated.close()
        raise


def _inflate(stream: BinaryIO, into: BinaryIO, limit: int) -> None:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    room = limit
    pending = b""
    while not inflater.eof:
        data = pending or stream.read(CHUNK)
        if not data:
            raise TruncatedDicom("The deflated data set is cut short; send it again, whole.")
        piece = inflater.decompress(data, CHUNK)
        pending = inflater.unconsumed_tail
        room -= into.write(piece)
        if room < 0:
            raise AbsurdDimensions("The deflated object swells over the limit.", limit_bytes=limit)
    into.seek(0)


def _finish(dataset: Dataset, uid: str, watched: Watched, stop: _Stop, stream: BinaryIO) -> Parsed:
    """Name the encoding that the elements show; tell an early end."""
    end = stream.tell()
    size = stream.seek(0, 2)
    if watched.short or end > size:
        raise TruncatedDicom(
            "The object ends within an element, or is not encoded as its file meta information"
            " says; send it again, whole."
        )
    said, little = dataset.original_encoding
    implicit = _is_implicit(dataset)
    dataset.set_original_encoding(implicit, little, dataset.original_character_set)
    if uid in {"", syntaxes.IMPLICIT_LITTLE, syntaxes.EXPLICIT_LITTLE}:
        uid = _recognized(implicit, bool(little))
    return Parsed(dataset, uid, stop.found, stream, size, contradicted=implicit != said)


def _is_implicit(dataset: Dataset) -> bool:
    """Tell whether elements lack a VR, whatever the transfer syntax is said to be."""
    for tag in dataset.keys():  # noqa: SIM118 - items would be parsed
        element: Any = dataset.get_item(tag, keep_deferred=True)
        if isinstance(element, RawDataElement):
            return bool(element.is_implicit_VR)
    return bool(dataset.original_encoding[0])


def value_of(dataset: Dataset, keyword: str) -> Any:
    """Return an element's value; `None` where it lacks or cannot be read.

    pydicom parses an element when it is first asked for, and raises whatever comes up then.

    Raises
    ------
    AbsurdDimensions
        A sequence has too many items (`service.dicom.bounds`).
    """
    try:
        return dataset.get(keyword)
    except WhylightError:  # too much of it
        raise
    except Exception:  # noqa: BLE001 - whatever ails it, it is not said
        return None


def items_of(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """Return a sequence's items; none where it lacks, cannot be read or is no sequence."""
    found = value_of(dataset, keyword)
    return found if isinstance(found, Items) else ()


def fragments(stream: BinaryIO, element: PixelElement, size: int) -> tuple[tuple[int, int], ...]:
    """Return offset and length of every fragment of encapsulated pixel data.

    The first item is the basic offset table and is left out (PS3.5 A.4).

    Raises
    ------
    TruncatedDicom
        An item overruns the file, or the end mark is missing.
    AbsurdDimensions
        There are more than `FRAGMENTS`.
    """
    found: list[tuple[int, int]] = []
    at = element.offset
    while True:
        stream.seek(at)
        head = stream.read(8)
        group, number, length = struct.unpack("<HHL", head) if len(head) == 8 else (0, 0, 0)  # noqa: PLR2004 - an item's head
        if (group, number) == (0xFFFE, 0xE0DD):
            return tuple(found[1:])
        if (group, number) != (0xFFFE, 0xE000) or length > size - at - 8:
            raise TruncatedDicom(
                "The compressed pixel data ends before its end mark; send the object again, whole."
            )
        found.append((at + 8, length))
        if len(found) > FRAGMENTS:
            raise AbsurdDimensions("The pixels are in too many fragments.", limit=FRAGMENTS)
        at += 8 + length
