"""Zip archives from strangers: good ones are read, harmful ones refused."""

import io
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import Buffer, override

from service.archive import safe_entries
from service.errors.base import WhylightError
from service.errors.requests import ArchiveTooLarge, TooLarge, UnsafeArchive

MIB = 1024 * 1024
FREE = MIB


def read(
    data: bytes,
    *,
    entries: int = 100,
    ratio: int = 100,
    free: int = FREE,
    total: int = 64 * MIB,
) -> dict[str, bytes]:
    found = safe_entries(
        io.BytesIO(data),
        max_entries=entries,
        max_ratio=ratio,
        free_bytes=free,
        max_total_bytes=total,
    )
    return {name: stream.read() for name, stream in found}


def made(
    files: Iterable[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return buffer.getvalue()


def refusal(data: bytes, **bounds: int) -> str:
    with pytest.raises(UnsafeArchive) as refused:
        read(data, **bounds)
    return refused.value.detail


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_plain_archive_is_read(method: int) -> None:
    files = [("a/b.dcm", os.urandom(3 * MIB)), ("c", b""), ("d/e/f.txt", b"text" * 100)]
    assert read(made(files, method)) == dict(files)


def test_folders_are_passed_over() -> None:
    assert read(made([("a/", b""), ("a/b", b"x")])) == {"a/b": b"x"}


def test_an_empty_archive_has_no_entries() -> None:
    assert read(made([])) == {}


def test_backslashes_of_old_makers_are_slashes() -> None:
    entry = zipfile.ZipInfo("a/b")
    data = made([(entry, b"x")]).replace(b"a/b", b"a\\b")
    assert read(data) == {"a/b": b"x"}


def test_an_archive_behind_other_bytes_and_with_a_comment_is_read() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"x")
        archive.comment = b"made elsewhere"
    assert read(b"#!/bin/sh\n" + buffer.getvalue()) == {"a": b"x"}


def test_an_archive_written_to_a_pipe_is_read() -> None:
    """Its sizes stand behind the data, and in the directory."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        @override
        def writable(self) -> bool:
            return True

        @override
        def write(self, data: Buffer, /) -> int:
            piece = bytes(data)
            self.data += piece
            return len(piece)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"x" * 1000)
    assert read(pipe.data) == {"a": b"x" * 1000}


def test_an_entry_that_is_not_read_does_not_disturb_the_next() -> None:
    data = made([("a", b"1" * 100_000), ("b", b"2")])
    names = [
        (name, stream.read() if name == "b" else b"")
        for name, stream in safe_entries(
            io.BytesIO(data), max_entries=9, max_ratio=100, free_bytes=FREE, max_total_bytes=MIB
        )
    ]
    assert names == [("a", b""), ("b", b"2")]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../../x", "C:\\x", "..\\x", "a//b", "./../a", "/./a", "a\nb"]
)
def test_a_path_that_leads_out_is_refused(name: str) -> None:
    assert "path leads out" in refusal(made([("fine", b""), (name, b"x")]))


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o020644, 0o060644, 0o140644])
def test_links_and_devices_are_refused(mode: int) -> None:
    entry = zipfile.ZipInfo("innocent")
    entry.external_attr = mode << 16
    assert "link or a device" in refusal(made([(entry, b"/etc/passwd")]))


def test_an_encrypted_entry_is_refused() -> None:
    data = bytearray(made([("a", b"x")]))
    data[6] |= 1  # local header's flags
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in refusal(bytes(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(method: int) -> None:
    assert "deflate" in refusal(made([("a", b"x" * 1000)], method))


@pytest.mark.parametrize(
    "inner",
    [
        made([("a", b"x")]),
        made([]),
        b"\x1f\x8b\x08\x00rest",
        b"BZh91AY&SY",
        b"\xfd7zXZ\x00rest",
        b"7z\xbc\xaf\x27\x1crest",
        b"Rar!\x1a\x07\x01\x00",
        b"\x28\xb5\x2f\xfdrest",
        bytes(257) + b"ustar\x0000",
    ],
)
def test_an_archive_within_is_refused_whatever_its_name(inner: bytes) -> None:
    assert "archive itself" in refusal(made([("image.dcm", inner)]))


def test_the_folder_that_an_archive_was_made_in_is_no_part_of_names() -> None:
    assert read(made([("./", b""), ("./a.dcm", b"a"), ("b/./c", b"c")])) == {
        "a.dcm": b"a",
        "b/c": b"c",
    }
    assert "share a name" in refusal(made([("./a", b"1"), ("a", b"2")]))


def test_two_entries_of_one_name_are_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        data = made([("a", b"1"), ("a", b"2")])
    assert "share a name" in refusal(data)


def test_too_many_entries_are_refused() -> None:
    data = made((str(i), b"") for i in range(101))
    assert len(read(made((str(i), b"") for i in range(100)))) == 100
    with pytest.raises(TooLarge) as refused:
        read(data)
    assert refused.value.facts["limit"] == 100


def test_a_directory_of_many_entries_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    for count in (50_000, 1_100):  # by the length it states, and by counting
        data = made((str(i), b"") for i in range(count))
        monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", never)
        with pytest.raises(TooLarge):
            read(data, entries=1000)
        monkeypatch.undo()


def test_more_declared_bytes_than_allowed_are_refused_unread() -> None:
    data = made([("a", os.urandom(MIB)), ("b", os.urandom(MIB))])
    with pytest.raises(ArchiveTooLarge) as refused:
        read(data, total=2 * MIB - 1)
    assert refused.value.facts == {"limit_bytes": 2 * MIB - 1, "observed_bytes": 2 * MIB}
    assert len(read(data, total=2 * MIB)) == 2


def test_a_bomb_stops_at_the_ratio() -> None:
    data = made([("bomb", bytes(50 * MIB))])
    assert len(data) < 100_000
    (entry,) = zipfile.ZipFile(io.BytesIO(data)).infolist()
    found = safe_entries(
        io.BytesIO(data), max_entries=9, max_ratio=100, free_bytes=FREE, max_total_bytes=64 * MIB
    )
    _, stream = next(found)
    taken: list[int] = []
    with pytest.raises(ArchiveTooLarge) as refused:
        taken.extend(iter(lambda: len(stream.read(64 * 1024)), 0))
    assert FREE < sum(taken) <= entry.compress_size * 100
    observed = refused.value.facts["observed_ratio"]
    assert isinstance(observed, int)
    assert 100 < observed <= (sum(taken) + MIB) / entry.compress_size + 1


def test_small_entries_may_compress_as_well_as_they_like() -> None:
    mask = bytes(4 * MIB)
    data = made([("mask.dcm", mask)])
    assert len(mask) > 600 * len(data)
    assert read(data, free=len(mask)) == {"mask.dcm": mask}
    with pytest.raises(ArchiveTooLarge) as refused:
        read(data, free=len(mask) - 1)
    assert "limit_ratio" in refused.value.facts


def test_many_small_entries_that_compress_well_are_held_to_the_total() -> None:
    data = made((f"{n}.dcm", bytes(MIB)) for n in range(9))
    assert len(read(data, total=9 * MIB)) == 9
    with pytest.raises(ArchiveTooLarge) as refused:
        read(data, total=9 * MIB - 1)
    assert refused.value.facts["limit_bytes"] == 9 * MIB - 1


def test_what_an_entry_declares_is_not_believed() -> None:
    """The directory says 10 bytes; a million and more come out."""
    real = bytes(4 * MIB)
    data = bytearray(made([("a", real)]))
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<L", data, at + 24, 10)
    struct.pack_into("<L", data, at + 16, zlib.crc32(real[:10]))
    found = read(bytes(data), total=MIB)
    assert len(found["a"]) <= 10


def overlapping() -> bytes:
    """Two directory entries that share one local header and its data."""
    data = made([("a", b"x" * 100)])
    at, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    record = data[at:end]
    second = record.replace(b"a", b"b")
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, 2 * len(record), at, 0)
    return data[:at] + record + second + tail


def test_entries_that_overlap_are_refused() -> None:
    assert "overlap" in refusal(overlapping())


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip archive at all" * 10, b"PK\x05\x06"])
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    assert "no zip archive" in refusal(data)


def test_a_truncated_archive_is_refused() -> None:
    data = made([("a", os.urandom(10_000))])
    for length in (len(data) - 1, len(data) // 2, 30):
        refusal(data[:length])


def test_damaged_data_is_refused() -> None:
    data = bytearray(made([("a", os.urandom(10_000))], zipfile.ZIP_STORED))
    data[5000] ^= 0xFF
    assert "damaged" in refusal(bytes(data))


def test_errors_never_speak_a_file_name() -> None:
    with pytest.raises(UnsafeArchive) as refused:
        read(made([("../CANARY^JANE", b"x")]))
    assert "CANARY" not in repr(refused.value) + repr(refused.value.facts)
    assert refused.value.facts == {"entry": 1}


@settings(deadline=None, max_examples=300)
@given(seed=st.integers(0, 2**32), flips=st.integers(1, 20))
def test_a_mangled_archive_is_read_or_refused_and_nothing_else(seed: int, flips: int) -> None:
    data = bytearray(made([("a/b", b"text" * 300), ("c", bytes(range(256))), ("d/", b"")]))
    choice = random.Random(seed)  # noqa: S311 - damage, not secrets
    for _ in range(flips):
        data[choice.randrange(len(data))] = choice.randrange(256)
    try:
        found = read(bytes(data), total=MIB)
    except WhylightError:
        return
    assert sum(map(len, found.values())) <= MIB
