"""What the store promises, of every kind of store."""

import hashlib
import os
import threading
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.settings import StoreSettings
from service.store.base import BlobStore
from service.store.objects import CHUNK, open_store

ESCAPES = [
    "../x",
    "a/../../x",
    "/etc/passwd",
    "a//b",
    "a/./b",
    "a/",
    "",
    ".",
    "..",
    "a\\b",
    "a b",
    "ä",
    "a\nb",
    "a\0b",
    "a/.hidden",
    "%2e%2e/x",
    "a" * 1000,
]


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """A folder, and the S3 bucket that WHYLIGHT_TEST_S3 names, with AWS_* credentials."""
    if request.param == "folder":
        return open_store(StoreSettings(url=f"file://{tmp_path}/store", reserve_bytes=0))
    bucket = os.environ.get("WHYLIGHT_TEST_S3")
    if bucket is None:
        pytest.skip("no S3 bucket: WHYLIGHT_TEST_S3 is not set")
    return open_store(StoreSettings(url=f"{bucket}/{uuid4().hex}"))


def test_what_is_put_is_got(store: BlobStore) -> None:
    store.put("a/b/c.bin", b"bytes")
    assert store.get("a/b/c.bin") == b"bytes"


def test_an_empty_object_is_an_object(store: BlobStore) -> None:
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert b"".join(store.stream("empty")) == b""
    head = store.head("empty")
    assert head is not None
    assert head.bytes == 0


def test_a_file_is_put_and_fetched_whole(store: BlobStore, tmp_path: Path) -> None:
    data = os.urandom(12 * CHUNK + 7)
    (tmp_path / "in").write_bytes(data)
    store.put("big", tmp_path / "in")
    store.fetch("big", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


def test_putting_again_replaces(store: BlobStore) -> None:
    store.put("a", b"first, longer")
    store.put("a", b"second")
    assert store.get("a") == b"second"


def test_without_overwrite_the_first_stays(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"third")
    store.put("a", b"first", overwrite=False)
    for data in (b"second", tmp_path / "in"):
        with pytest.raises(FileExistsError):
            store.put("a", data, overwrite=False)
    assert store.get("a") == b"first"


def test_of_many_writers_without_overwrite_one_wins(store: BlobStore) -> None:
    won: list[bytes] = []

    def write(data: bytes) -> None:
        try:
            store.put("contested", data, overwrite=False)
        except FileExistsError:
            return
        won.append(data)

    threads = [threading.Thread(target=write, args=(bytes([i]) * 1000,)) for i in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert won == [store.get("contested")]


def test_a_reader_never_sees_half_an_object(store: BlobStore) -> None:
    whole = [bytes([i]) * 200_000 for i in range(8)]
    store.put("a", whole[0])
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            for data in whole:
                store.put("a", data)

    writer = threading.Thread(target=write)
    writer.start()
    seen = {hashlib.sha256(store.get("a")).digest() for _ in range(100)}
    over.set()
    writer.join(30)
    assert seen <= {hashlib.sha256(data).digest() for data in whole}


def test_what_is_not_there_is_told(store: BlobStore, tmp_path: Path) -> None:
    store.put("a/b", b"x")
    for path in ("nothing", "a", "a/b/c"):
        with pytest.raises(FileNotFoundError):
            store.get(path)
        with pytest.raises(FileNotFoundError):
            store.stream(path)
        with pytest.raises(FileNotFoundError):
            store.fetch(path, tmp_path / "out")
        assert store.head(path) is None
    assert not (tmp_path / "out").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(start=st.integers(0, 120), end=st.none() | st.integers(0, 120))
def test_a_range_is_a_slice(store: BlobStore, start: int, end: int | None) -> None:
    data = bytes(range(100))
    if store.head("data") is None:
        store.put("data", data)
    assert b"".join(store.stream("data", start, end)) == data[start:end]


def test_a_stream_comes_in_chunks(store: BlobStore) -> None:
    data = os.urandom(3 * CHUNK + 5)
    store.put("data", data)
    chunks = list(store.stream("data"))
    assert b"".join(chunks) == data
    assert len(chunks) > 2
    assert max(map(len, chunks)) <= 8 * CHUNK


def test_head_tells_size_and_time(store: BlobStore) -> None:
    store.put("a/b", b"12345")
    head = store.head("a/b")
    assert head is not None
    assert (head.path, head.bytes) == ("a/b", 5)
    assert head.modified > 1_600_000_000


def test_a_listing_shows_a_folder_and_no_namesakes(store: BlobStore) -> None:
    for path in ("a/1", "a/b/2", "ab/3", "c"):
        store.put(path, path.encode())
    assert {(blob.path, blob.bytes) for blob in store.list("a")} == {("a/1", 3), ("a/b/2", 5)}
    assert list(store.list("none")) == []


def test_deleting_removes_and_deleting_nothing_is_fine(store: BlobStore) -> None:
    store.put("a", b"x")
    store.delete("a")
    store.delete("a")
    assert store.head("a") is None


def test_purging_removes_a_folder_and_nothing_else(store: BlobStore) -> None:
    for path in ("a/1", "a/b/2", "ab/3"):
        store.put(path, b"x")
    assert store.purge("a") == 2
    assert store.purge("a") == 0
    assert [blob.path for blob in store.list("ab")] == ["ab/3"]


@pytest.mark.parametrize("path", ESCAPES)
def test_a_path_that_is_not_ours_is_refused(store: BlobStore, tmp_path: Path, path: str) -> None:
    for ask in (store.get, store.head, store.delete, store.stream, store.purge):
        with pytest.raises(ValueError, match="not a path"):
            ask(path)
    with pytest.raises(ValueError, match="not a path"):
        store.put(path, b"x")
    with pytest.raises(ValueError, match="not a path"):
        list(store.list(path))
    with pytest.raises(ValueError, match="not a path"):
        store.fetch(path, tmp_path / "out")


def test_a_store_that_works_answers(store: BlobStore) -> None:
    store.ping()
