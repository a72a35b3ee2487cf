"""The object store's port: bytes by path."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Blob:
    """What there is to know of an object without its bytes."""

    path: str
    bytes: int
    modified: float
    """Seconds since the epoch."""


class BlobStore(Protocol):
    """Bytes by path, local or S3.

    Paths are relative, separated by ``/``, of letters, digits and ``._=@+-``,
    and cannot leave the store: any other path is a `ValueError`. Every
    operation raises `StoreUnavailable` when the store does not answer.
    """

    def ping(self) -> None:
        """Raise `StoreUnavailable` unless the store answers, `OutOfStorage` when full."""
        ...

    def put(self, path: str, data: bytes | Path, *, overwrite: bool = True) -> None:
        """Write an object whole, from memory or from a file.

        Raises
        ------
        FileExistsError
            With ``overwrite=False``, when the object exists.
        """
        ...

    def get(self, path: str) -> bytes:
        """Read an object whole; `FileNotFoundError` if there is none."""
        ...

    def fetch(self, path: str, to: Path) -> None:
        """Copy an object into a file; `FileNotFoundError` if there is none."""
        ...

    def stream(self, path: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Read ``[start, end)`` in chunks; `FileNotFoundError` if there is none."""
        ...

    def head(self, path: str) -> Blob | None:
        """Tell of an object, or `None`."""
        ...

    def list(self, prefix: str) -> Iterator[Blob]:
        """Tell of every object below `prefix` (a folder, without its final slash)."""
        ...

    def delete(self, path: str) -> None:
        """Remove an object; removing none is fine."""
        ...

    def purge(self, prefix: str) -> int:
        """Remove every object below `prefix`; return how many there were."""
        ...
