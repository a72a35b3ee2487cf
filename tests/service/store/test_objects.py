"""The local store's own ways: room, folders, failures; and stores by URL."""

import os
import stat
from pathlib import Path

import pytest

from service.errors.jobs import OutOfStorage, StoreUnavailable
from service.settings import StoreSettings
from service.store.objects import ObjectBlobStore, open_store


def opened(folder: Path, reserve: int = 0) -> ObjectBlobStore:
    return open_store(StoreSettings(url=f"file://{folder}", reserve_bytes=reserve))


def test_a_local_store_makes_its_folder_private(tmp_path: Path) -> None:
    opened(tmp_path / "new" / "store").put("a", b"x")
    assert stat.S_IMODE((tmp_path / "new" / "store").stat().st_mode) == 0o700


def test_a_folder_with_odd_letters_is_opened(tmp_path: Path) -> None:
    opened(tmp_path / "a%20b%23").put("a", b"x")
    assert (tmp_path / "a b#" / "a").read_bytes() == b"x"


def test_too_little_room_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    store = opened(tmp_path / "store", reserve=free * 2)
    with pytest.raises(OutOfStorage):
        store.ping()
    with pytest.raises(OutOfStorage) as refused:
        store.put("a", b"x")
    assert refused.value.facts["reserve_bytes"] == free * 2
    assert store.head("a") is None


def test_an_object_that_would_eat_the_reserve_is_refused(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(free)  # sparse: it takes no room itself
    store = opened(tmp_path / "store", reserve=1024)
    store.put("small", b"x")
    with pytest.raises(OutOfStorage):
        store.put("huge", huge)


def test_no_empty_folder_stays_behind(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")
    store.put("a/b/c/1", b"x")
    store.purge("a")
    assert list((tmp_path / "store").iterdir()) == []


def test_no_half_written_file_stays_behind(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")
    store.put("a", b"x", overwrite=False)
    with pytest.raises(FileExistsError):
        store.put("a", b"y" * 1000, overwrite=False)
    with pytest.raises(FileNotFoundError):
        store.put("b", tmp_path / "no-such-file")
    assert [each.name for each in (tmp_path / "store").iterdir()] == ["a"]


def test_a_folder_that_vanished_is_told(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")
    (tmp_path / "store").rmdir()
    with pytest.raises(StoreUnavailable):
        store.ping()
    with pytest.raises(StoreUnavailable):
        store.put("a", b"x")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable):
        opened(tmp_path / "file" / "store")


@pytest.mark.parametrize("url", ["", "store", "file://", "s3://", "http://host/x", "memory:///"])
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="file:///folder or s3://bucket"):
        open_store(StoreSettings(url=url))


def test_an_s3_server_that_is_away_is_told_in_our_own_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "CANARY-ID",
        "AWS_SECRET_ACCESS_KEY": "CANARY-SECRET",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    store = open_store(StoreSettings(url="s3://bucket/prefix"))
    for ask in (store.ping, lambda: store.get("a"), lambda: store.put("a", b"x")):
        with pytest.raises(StoreUnavailable) as told:
            ask()
        assert "CANARY" not in repr(told.value)
        assert "127.0.0.1" not in repr(told.value)
