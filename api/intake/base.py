"""How a body becomes objects on disk: bounded, streamed, and never left behind."""

import fcntl
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import ClassVar, Final

import orjson
from pydantic import JsonValue
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from typing_extensions import override

from service.archive import safe_entries
from service.domain.ids import new_id
from service.errors.jobs import OutOfStorage
from service.errors.requests import MalformedBody, TooLarge, UnsupportedMediaType
from service.registry import Registry
from service.scratch import LOCK, shared_folder
from service.settings import LimitSettings
from service.studies import Part

CHUNK: Final = 1024 * 1024
"""Bytes gathered before a thread writes them."""

DEEPEST: Final = 24
"""Levels of the deepest JSON that is read; a request needs six."""

ZIP_MAGIC: Final = b"PK\x03\x04"


class Scratch:
    """The gateway's room for bodies on their way, shared by all requests.

    Parameters
    ----------
    root
        Folder shared by the machine's gateways; by default one of the system's
        temporary folder that only this user can enter.
    limit
        Bytes that all requests together may hold.

    Notes
    -----
    Patients' files pass through here. A request's folder goes with the
    request; what a killed process left goes when the next one starts.
    """

    def __init__(self, root: Path | None, limit: int) -> None:
        shared = shared_folder(root)
        shared.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_orphans(shared)
        self.folder = shared / new_id("gw")
        self.folder.mkdir(mode=0o700)
        self._lock_file = self.folder.with_suffix(LOCK).open("w")
        # locked while we live: the kernel lets go of it however the process dies
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        self._limit = limit
        self._used = 0
        self._lock = Lock()

    @contextmanager
    def room(self) -> Iterator["Room"]:
        """Give a request a folder of its own, and remove it with all it holds."""
        room = Room(Path(tempfile.mkdtemp(prefix="rq-", dir=self.folder)), self)
        try:
            yield room
        finally:
            shutil.rmtree(room.folder, ignore_errors=True)
            self.take(-room.taken)

    def take(self, size: int) -> None:
        """Claim `size` bytes, or give them back when negative.

        Raises
        ------
        OutOfStorage
            Too many uploads are on their way.
        """
        with self._lock:
            if size > 0 and self._used + size > self._limit:
                raise OutOfStorage(
                    "Too many uploads are on their way; try again shortly.", limit=self._limit
                )
            self._used += size

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.with_suffix(LOCK).unlink(missing_ok=True)
        self._lock_file.close()


class Room:
    """One request's folder."""

    def __init__(self, folder: Path, scratch: Scratch) -> None:
        self.folder = folder
        self.taken = 0
        self._scratch = scratch
        self._count = 0

    def new(self) -> Path:
        """Return a path for a new file; callers' file names are never used."""
        self._count += 1
        return self.folder / f"{self._count:06d}"

    def claim(self, size: int) -> None:
        """Count bytes about to be written; errors as of `Scratch.take`."""
        self._scratch.take(size)
        self.taken += size

    def drop(self, file: Path) -> None:
        """Remove a file before its request ends."""
        size = file.stat().st_size
        file.unlink()
        self._scratch.take(-size)
        self.taken -= size


@dataclass(frozen=True, slots=True)
class Received:
    """What a body held."""

    parts: Iterator[Part]
    """The objects, each in its file until the next one is asked for."""

    request: JsonValue = None
    """The JSON document that came beside them, if one did."""


class Sink(ABC):
    """Takes one body in."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Take the next bytes; called on threads, one call after the other."""

    @abstractmethod
    def end(self) -> Received:
        """Return what the body held, once all of it has come."""

    def close(self) -> None:  # noqa: B027 - most sinks have nothing to let go of
        """Let go of open files; called once, whatever happened."""


class FileSink(Sink):
    """Writes the body into one file.

    Parameters
    ----------
    room
        Where the file lies.
    """

    def __init__(self, room: Room) -> None:
        self.room = room
        self.path = room.new()
        self._file = self.path.open("wb")

    @override
    def write(self, data: bytes) -> None:
        self.room.claim(len(data))
        self._file.write(data)

    @override
    def end(self) -> Received:
        self._file.close()
        return Received(iter([Part(1, self.path)]))

    @override
    def close(self) -> None:
        self._file.close()


class Intake(ABC):
    """A kind of body.

    To add one: a file in this folder with a class that registers itself, and
    its test.
    """

    name: ClassVar[str]
    media_type: ClassVar[str]

    @abstractmethod
    def open(self, content_type: str, room: Room, limits: LimitSettings) -> Sink:
        """Return a sink for a body of this `content_type` (a header's whole value)."""


INTAKES: Final = Registry[Intake]("api.intake", "whylight.intakes")


def media_types() -> list[str]:
    """Return the content types that are taken in."""
    return sorted(INTAKES[name].media_type for name in INTAKES)


def intake_for(content_type: str) -> Intake:
    """Return the intake of a content type; `UnsupportedMediaType` if there is none."""
    wanted = content_type.partition(";")[0].strip().lower()
    for name in INTAKES:
        if INTAKES[name].media_type == wanted:
            return INTAKES[name]()
    raise UnsupportedMediaType(
        "Send one of the content types in 'supported'.", supported=[*media_types()]
    )


async def receive(request: Request, room: Room, limits: LimitSettings) -> Received:
    """Take in the body of a request, whatever kind it is of.

    Raises
    ------
    UnsupportedMediaType
        No intake reads the content type.
    TooLarge
        The body is over the limit; no more of it is read.
    MalformedBody
        It is not what its content type says.
    OutOfStorage
        Too many uploads are on their way.
    """
    content_type = request.headers.get("content-type", "")
    sink = intake_for(content_type).open(content_type, room, limits)
    return await pour(request, sink, limits.body_bytes)


async def pour(request: Request, sink: Sink, limit: int) -> Received:
    """Hand the body to a sink, in chunks worth a thread's while; errors as of `receive`."""
    held = bytearray()
    try:
        async for data in bounded(request, limit):
            held += data
            if len(held) >= CHUNK:
                await run_in_threadpool(sink.write, bytes(held))
                held.clear()
        await run_in_threadpool(sink.write, bytes(held))
        return await run_in_threadpool(sink.end)
    finally:
        sink.close()


async def read_whole(request: Request, limit: int) -> bytes:
    """Return a small body; `TooLarge` over the limit."""
    held = bytearray()
    async for data in bounded(request, limit):
        held += data
    return bytes(held)


async def bounded(request: Request, limit: int) -> AsyncIterator[bytes]:
    """Iterate over a body; `TooLarge` at the first byte over the limit.

    Raises
    ------
    UnsupportedMediaType
        The body is encoded: nobody bounded what it would swell to.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedMediaType(
            "Send the body as it is, without Content-Encoding; objects may come in a zip archive or"
            " in a compressed transfer syntax.",
            supported=["identity"],
        )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit, int(announced))
    size = 0
    async for data in request.stream():
        size += len(data)
        if size > limit:
            raise _too_large(limit, size)
        yield data


def parse_json(data: bytes) -> JsonValue:
    """Return a JSON document; `MalformedBody` when it is none, or nested too deep."""
    try:
        document: JsonValue = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise MalformedBody(
            "The body is not valid JSON (RFC 8259, UTF-8), or holds a number beyond its range."
        ) from None
    _check_depth(document)
    return document


def is_archive(file: Path) -> bool:
    """Tell whether a file begins as a zip archive with entries does."""
    with file.open("rb") as stream:
        return stream.read(len(ZIP_MAGIC)) == ZIP_MAGIC


def entries_of(file: Path, first: int, room: Room, limits: LimitSettings) -> Iterator[Part]:
    """Iterate over a zip archive's entries, numbered from `first`.

    Only one entry lies inflated on the disk at a time.

    Raises
    ------
    UnsafeArchive, TooLarge
        As of `safe_entries`.
    """
    with file.open("rb") as stream:
        entries = safe_entries(
            stream,
            max_entries=limits.archive_entries,
            max_ratio=limits.archive_ratio,
            free_bytes=limits.archive_free_bytes,
            max_total_bytes=limits.body_bytes,
            nested=True,  # as on patients' discs, beside a viewer: skipped, as no image
        )
        for number, (_, entry) in enumerate(entries, first):
            inflated = room.new()
            with inflated.open("wb") as target:
                while chunk := entry.read(CHUNK):
                    room.claim(len(chunk))
                    target.write(chunk)
            yield Part(number, inflated)
            room.drop(inflated)


def _too_large(limit: int, observed: int) -> TooLarge:
    """Return the failure; `observed` is the announced length, else what has come so far."""
    return TooLarge("The body is larger than allowed.", limit=limit, observed=observed)


def _check_depth(document: JsonValue) -> None:
    level = [document]
    for _ in range(DEEPEST):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise MalformedBody("The JSON document is nested too deep.", limit=DEEPEST)


def _children(node: JsonValue) -> list[JsonValue]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _remove_orphans(shared: Path) -> None:
    """Remove the folders of gateways that no longer live."""
    for path in shared.glob(f"gw_*{LOCK}"):
        with suppress(OSError), path.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
