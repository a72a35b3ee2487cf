"""The object store on obstore: a local directory, or S3, chosen by URL."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, S3Store
from typing_extensions import override

from service.errors.jobs import OutOfStorage, StoreUnavailable
from service.settings import StoreSettings
from service.store.base import Blob, BlobStore

CHUNK = 1024 * 1024
"""Bytes of one chunk of a stream."""

LONGEST_PATH = 900  # S3 keys end at 1024 bytes, and the store's prefix comes first
SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=@+-]{0,199}")


class ObjectBlobStore(BlobStore):
    """Bytes by path in any store that obstore knows.

    Parameters
    ----------
    store
        Where the objects lie.
    root
        The folder of a local store, whose free space is watched; `None` for others.
    reserve
        Free bytes under which a local store takes nothing more.

    Notes
    -----
    Thread-safe. An object appears whole or not at all: a local one is written
    beside its place and moved there. Paths are held to a small alphabet, so
    that no file name of a caller's can become part of one; another path is a
    `ValueError`, for it is a fault of ours.
    """

    def __init__(self, store: ObjectStore, *, root: Path | None = None, reserve: int = 0) -> None:
        self._store = store
        self._root = root
        self._reserve = reserve

    @override
    def ping(self) -> None:
        with _answering():
            if self._root is not None and not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
                raise StoreUnavailable("The store's folder cannot be written.")
            for _ in obstore.list(self._store, "ping", chunk_size=1):
                break
        self._demand_room(0)

    @override
    def put(self, path: str, data: bytes | Path, *, overwrite: bool = True) -> None:
        checked = _checked(path)
        self._demand_room(data.stat().st_size if isinstance(data, Path) else len(data))
        try:
            with _answering():
                obstore.put(self._store, checked, data, mode="overwrite" if overwrite else "create")
        except AlreadyExistsError:
            raise FileExistsError(path) from None
        except StoreUnavailable:
            self._demand_room(0)  # a disk that filled up meanwhile is told as full
            raise

    @override
    def get(self, path: str) -> bytes:
        checked = _checked(path)
        with self._finding(checked):
            return bytes(obstore.get(self._store, checked).bytes())

    @override
    def fetch(self, path: str, to: Path) -> None:
        chunks = self.stream(path)
        try:
            with to.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
        except BaseException:
            to.unlink(missing_ok=True)
            raise

    @override
    def stream(self, path: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        blob = self.head(path)
        if blob is None:
            raise FileNotFoundError(path)
        stop = blob.bytes if end is None else min(end, blob.bytes)
        if start >= stop:
            return iter(())
        with self._finding(path):
            found = obstore.get(self._store, path, options={"range": (start, stop)})
            return _chunks(iter(found.stream(min_chunk_size=CHUNK)))

    @override
    def head(self, path: str) -> Blob | None:
        checked = _checked(path)
        try:
            with self._finding(checked):
                meta = obstore.head(self._store, checked)
        except FileNotFoundError:
            return None
        return Blob(path, meta["size"], meta["last_modified"].timestamp())

    @override
    def list(self, prefix: str) -> Iterator[Blob]:
        checked = _checked(prefix)
        with _answering():
            for batch in obstore.list(self._store, checked):
                for meta in batch:
                    yield Blob(meta["path"], meta["size"], meta["last_modified"].timestamp())

    @override
    def delete(self, path: str) -> None:
        checked = _checked(path)
        try:
            with self._finding(checked):
                obstore.delete(self._store, checked)
        except FileNotFoundError:
            return

    @override
    def purge(self, prefix: str) -> int:
        paths = [blob.path for blob in self.list(prefix)]
        for path in paths:
            self.delete(path)
        return len(paths)

    @contextmanager
    def _finding(self, path: str) -> Iterator[None]:
        """Tell an object that is not there from a store that does not answer.

        Below a file a local store finds no folder to look into, and says so in
        another way than of an object that is missing.
        """
        try:
            with _answering():
                yield
        except StoreUnavailable:
            if self._root is not None and self._root.is_dir() and not (self._root / path).exists():
                raise FileNotFoundError(path) from None
            raise

    def _demand_room(self, size: int) -> None:
        """Raise `OutOfStorage` when `size` more bytes would eat into the reserve."""
        if self._root is None:
            return
        try:
            space = os.statvfs(self._root)
        except OSError:
            raise _unavailable() from None
        free = space.f_bavail * space.f_frsize
        if free - size < self._reserve:
            raise OutOfStorage(
                "The store has too little room; try again when older results are gone.",
                free_bytes=free,
                reserve_bytes=self._reserve,
            )


def open_store(settings: StoreSettings) -> ObjectBlobStore:
    """Return the configured store; a local folder is made when it is missing.

    S3 takes its credentials, region and endpoint from the ``AWS_*`` variables.

    Raises
    ------
    ValueError
        The URL is neither ``file:///folder`` nor ``s3://bucket/prefix``.
    StoreUnavailable
        The local folder cannot be made.
    """
    parts = urlsplit(settings.url)
    if parts.scheme == "file" and parts.path:
        return _open_folder(Path(unquote(parts.path)), settings.reserve_bytes)
    if parts.scheme == "s3" and parts.netloc:
        return ObjectBlobStore(_bucket(settings.url))
    raise ValueError("the store's URL is file:///folder or s3://bucket/prefix")


def _bucket(url: str) -> S3Store:
    # obstore forgets this one variable once any option of its client is given
    plain = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
    return S3Store.from_url(
        url,
        client_options={"connect_timeout": "3s", "timeout": "60s", "allow_http": plain},
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
    )


def _open_folder(root: Path, reserve: int) -> ObjectBlobStore:
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        raise StoreUnavailable("The store's folder cannot be made.") from None
    store = LocalStore(root, automatic_cleanup=True)
    return ObjectBlobStore(store, root=root, reserve=reserve)


def _checked(path: str) -> str:
    """Return `path` when each of its segments is one of ours."""
    fine = all(SEGMENT.fullmatch(segment) for segment in path.split("/"))
    if not fine or len(path) > LONGEST_PATH:
        raise ValueError("not a path of the store")
    return path


def _chunks(chunks: Iterator[object]) -> Iterator[bytes]:
    with _answering():
        for chunk in chunks:
            yield bytes(chunk)  # type: ignore[call-overload]


@contextmanager
def _answering() -> Iterator[None]:
    """Turn what obstore raises into `StoreUnavailable`, unless it is an answer."""
    try:
        yield
    except (AlreadyExistsError, FileNotFoundError, FileExistsError):
        raise
    except (BaseError, OSError):
        raise _unavailable() from None


def _unavailable() -> StoreUnavailable:
    return StoreUnavailable("The object store does not answer; try again shortly.")
