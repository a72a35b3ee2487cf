"""Many files as one stream: a zip archive, or DICOM objects one after the other.

Nothing is held but the chunk on its way: what a file's bytes are is asked
for when its turn comes.
"""

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from typing_extensions import Buffer, override

from service.domain.artifact import Artifact

Open = Callable[[Artifact], Iterator[bytes]]
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive can tell: the same files, the same bytes."""


class _Outbox(io.RawIOBase):
    """Collects what the zip writer writes until it is sent."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: Buffer, /) -> int:
        view = memoryview(data)
        self._waiting += view
        return view.nbytes

    def take(self) -> bytes:
        """Return what waits, and wait for more."""
        data = bytes(self._waiting)
        self._waiting.clear()
        return data


def zipped(files: Iterable[Artifact], read: Open) -> Iterator[bytes]:
    """Yield a zip archive of the files; they are stored, not compressed again."""
    outbox = _Outbox()
    with zipfile.ZipFile(outbox, "w", zipfile.ZIP_STORED) as archive:
        for each in files:
            entry = zipfile.ZipInfo(each.name, EPOCH)
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as target:
                for chunk in read(each):
                    target.write(chunk)
                    yield outbox.take()
    yield outbox.take()


def related(files: Iterable[Artifact], read: Open, boundary: str) -> Iterator[bytes]:
    """Yield the files as the parts of a ``multipart/related`` body (RFC 2387)."""
    for each in files:
        yield f"--{boundary}\r\nContent-Type: {each.media_type}\r\n\r\n".encode()
        yield from read(each)
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()
