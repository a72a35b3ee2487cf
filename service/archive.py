"""Zip archives from strangers: read entry by entry, and never beyond a limit.

What a zip says of itself is not believed. Its directory is measured before
it is read, what it declares is checked before anything is inflated, and real
bytes are counted while inflating. Texts of errors name entries by their
place, because file names may name patients.
"""

import io
import math
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, BinaryIO

from typing_extensions import Buffer, override

from service.errors.requests import ArchiveTooLarge, TooLarge, UnsafeArchive

END_SIGNATURE = b"PK\x05\x06"
END64_SIGNATURE = b"PK\x06\x06"
DIRECTORY_SIGNATURE = b"PK\x01\x02"
END = struct.Struct("<4s4H2LH")  # APPNOTE 4.3.16
END64_LOCATOR = struct.Struct("<4sLQL")  # APPNOTE 4.3.15
END64 = struct.Struct("<4sQ2H2L4Q")  # APPNOTE 4.3.14
LONGEST_COMMENT = 1 << 16
DIRECTORY_ENTRY = 46  # bytes without name, extra field and comment; APPNOTE 4.3.12
LOCAL_HEADER = struct.Struct("<4s22x2H")  # APPNOTE 4.3.7: signature, name and extra lengths
NAME_ROOM = 512
"""Bytes of names, extra fields and comments allowed per entry, on average."""

DRIVE = re.compile("[A-Za-z]:")
ENCRYPTED = 0x1 | 0x40  # general purpose bits 0 and 6
HEAD = 512
"""First bytes of an entry, by which an archive within is told."""

TAR_MAGIC = slice(257, 262)
NESTED = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"\x28\xb5\x2f\xfd": "zstd",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far an archive may go."""

    entries: int
    ratio: int
    """Bytes that one stored byte may become in an entry of more than `free_bytes`."""

    free_bytes: int
    """Bytes that an entry may become whatever its ratio: masks and padding compress well."""

    total_bytes: int


def safe_entries(
    file: BinaryIO,
    *,
    max_entries: int,
    max_ratio: int,
    free_bytes: int,
    max_total_bytes: int,
    nested: bool = False,
) -> Iterator[tuple[str, BinaryIO]]:
    """Give each file of a zip archive: its name and its opened stream.

    A stream is to be read before the next entry is asked for. Folders are
    passed over.

    Parameters
    ----------
    file
        The archive, seekable.
    max_entries
        Most entries.
    max_ratio
        Bytes that one compressed byte may become in an entry of more than
        `free_bytes`.
    free_bytes
        Bytes that an entry may become whatever its ratio.
    max_total_bytes
        Most bytes that all entries together may become.
    nested
        Whether archives within are given as they are, unopened; else they are refused.

    Yields
    ------
    tuple of str and BinaryIO
        The name, relative and with ``/``, and the bytes, counted as they come.

    Raises
    ------
    TooLarge
        More entries than allowed.
    ArchiveTooLarge
        An entry expands beyond the ratio, or all of them to too many bytes.
    UnsafeArchive
        No zip archive, damaged, or one that could harm: a path that leads
        out, a link, encryption, an archive within, entries that overlap or
        share a name.
    """
    bounds = Bounds(max_entries, max_ratio, free_bytes, max_total_bytes)
    with _readable():
        _check_directory(file, bounds)
        archive = zipfile.ZipFile(file)
    with archive:
        entries = archive.infolist()
        _check_entries(entries, bounds)
        _check_overlaps(file, entries)
        left = Budget(bounds.total_bytes)
        for number, entry in enumerate(entries, 1):
            if not entry.is_dir():
                with _readable():
                    raw = archive.open(entry)
                with raw, io.BufferedReader(_Counted(raw, entry, number, bounds, left)) as stream:
                    if not nested and is_archive_head(stream.peek(HEAD)):
                        raise _archive_within(number)
                    yield _name(entry), stream


@dataclass
class Budget:
    """What the archive may still expand to."""

    bytes: int


class _Counted(io.RawIOBase):
    """An entry's bytes, counted while they inflate."""

    def __init__(
        self, raw: IO[bytes], entry: zipfile.ZipInfo, number: int, bounds: Bounds, left: Budget
    ) -> None:
        self._raw = raw
        self._number = number
        self._stored = max(entry.compress_size, 1)
        self._room = max(entry.compress_size * bounds.ratio, bounds.free_bytes)
        self._inflated = 0
        self._bounds = bounds
        self._left = left

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        with _readable():
            data = self._raw.read(len(view))
        self._count(len(data))
        view[: len(data)] = data
        return len(data)

    def _count(self, size: int) -> None:
        self._inflated += size
        self._left.bytes -= size
        if self._inflated > self._room:
            raise ArchiveTooLarge(
                "An entry of the archive expands beyond the allowed ratio; send it uncompressed.",
                entry=self._number,
                limit_ratio=self._bounds.ratio,
                observed_ratio=math.ceil(self._inflated / self._stored),
            )
        if self._left.bytes < 0:
            raise _too_many_bytes(self._bounds, self._bounds.total_bytes - self._left.bytes)


def _check_directory(file: BinaryIO, bounds: Bounds) -> None:
    """Measure the central directory before a reader takes it into memory."""
    end, size = _directory_end(file)
    if size > bounds.entries * (DIRECTORY_ENTRY + NAME_ROOM):
        raise _too_many_entries(bounds)
    start = max(end - END64_LOCATOR.size - END64.size - size, 0)
    file.seek(start)
    if file.read(end - start).count(DIRECTORY_SIGNATURE) > bounds.entries:
        raise _too_many_entries(bounds)


def _directory_end(file: BinaryIO) -> tuple[int, int]:
    """Return where the end record lies and how long a directory it states.

    The record is found as `zipfile` finds it: at the very end, else the last
    one before a comment; a ZIP64 record before it may state another length.
    """
    end = file.seek(0, io.SEEK_END)
    start = max(end - END.size - LONGEST_COMMENT, 0)
    file.seek(start)
    tail = file.read()
    at = len(tail) - END.size
    if at < 0 or not (tail.startswith(END_SIGNATURE, at) and tail.endswith(b"\0\0")):
        at = tail.rfind(END_SIGNATURE)
    if at < 0 or len(tail) - at < END.size:
        raise _no_zip()
    stated: int = END.unpack_from(tail, at)[5]
    return start + at, max(stated, _stated_by_zip64(file, start + at))


def _stated_by_zip64(file: BinaryIO, end: int) -> int:
    """Return the length that a ZIP64 end record before `end` states; 0 if none."""
    at = end - END64_LOCATOR.size - END64.size
    if at < 0:
        return 0
    file.seek(at)
    signature, *_, size, _ = END64.unpack(file.read(END64.size))
    return int(size) if signature == END64_SIGNATURE else 0


def _check_entries(entries: list[zipfile.ZipInfo], bounds: Bounds) -> None:
    if len(entries) > bounds.entries:
        raise _too_many_entries(bounds)
    declared = sum(entry.file_size for entry in entries)
    if declared > bounds.total_bytes:
        raise _too_many_bytes(bounds, declared)
    seen: set[str] = set()
    for number, entry in enumerate(entries, 1):
        if reason := _refusal(entry):
            raise UnsafeArchive(reason, entry=number)
        if _name(entry) in seen:
            raise UnsafeArchive("Two entries of the archive share a name.", entry=number)
        seen.add(_name(entry))


def _refusal(entry: zipfile.ZipInfo) -> str | None:
    """Return why an entry is refused by what the directory says of it."""
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "An entry of the archive is a link or a device; send plain files."
    if entry.flag_bits & ENCRYPTED:
        return "An entry of the archive is encrypted; send it without a password."
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "An entry of the archive is compressed in another way than deflate."
    if _leads_out(_name(entry)):
        return "An entry's path leads out of the archive; use relative paths."
    return None


def _name(entry: zipfile.ZipInfo) -> str:
    """Return an entry's path as its maker wrote it, with the usual slashes and no ``./``."""
    segments = entry.orig_filename.replace("\\", "/").split("/")
    return "/".join(each for each in segments if each != ".")


def _leads_out(name: str) -> bool:
    segments = name.removesuffix("/").split("/")
    odd = DRIVE.match(name) or any(letter < " " for letter in name)
    return bool(odd) or (bool(name) and any(segment in ("", "..") for segment in segments))


def _check_overlaps(file: BinaryIO, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse entries that share bytes: a small archive could expand without end."""
    with _readable():
        spans = sorted(_span(file, entry) for entry in entries)
    if any(end > start for (_, end), (start, _) in pairwise(spans)):
        raise UnsafeArchive("Entries of the archive overlap.")


def _span(file: BinaryIO, entry: zipfile.ZipInfo) -> tuple[int, int]:
    file.seek(entry.header_offset)
    signature, name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile
    data = entry.header_offset + LOCAL_HEADER.size + name + extra
    return entry.header_offset, data + entry.compress_size


def is_archive_head(head: bytes) -> bool:
    """Tell an archive, or a compressed file, by its first `HEAD` bytes."""
    return any(head.startswith(magic) for magic in NESTED) or head[TAR_MAGIC] == b"ustar"


def _archive_within(number: int) -> UnsafeArchive:
    return UnsafeArchive(
        "An entry of the archive is an archive itself; unpack it first.", entry=number
    )


@contextmanager
def _readable() -> Iterator[None]:
    """Turn what a damaged archive makes readers raise into `UnsafeArchive`."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        OSError,
        ValueError,
        NotImplementedError,
        RuntimeError,
    ):
        raise _no_zip() from None


def _no_zip() -> UnsafeArchive:
    return UnsafeArchive("This is no zip archive, or a damaged one.")


def _too_many_entries(bounds: Bounds) -> TooLarge:
    return TooLarge("The archive has more entries than allowed.", limit=bounds.entries)


def _too_many_bytes(bounds: Bounds, observed: int) -> ArchiveTooLarge:
    return ArchiveTooLarge(
        "The archive expands to more bytes than allowed; send it in parts.",
        limit_bytes=bounds.total_bytes,
        observed_bytes=observed,
    )
