"""Records of what was measured: kept by what they depend on, and listed in files of packages."""

from collections.abc import Iterable
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from service.domain.certificate import MethodRecord
from service.domain.precision import PrecisionRecord
from service.store.base import BlobStore

R = TypeVar("R", MethodRecord, PrecisionRecord)


class Records(Generic[R]):
    """The records of one kind; every worker reads what one has measured.

    Parameters
    ----------
    kind
        What they are.
    folder
        Where in the store they lie, each under its digest.
    """

    def __init__(self, store: BlobStore, kind: type[R], folder: str) -> None:
        self._store = store
        self._kind: type[R] = kind
        self._folder = folder

    def find(self, id_: str) -> R | None:
        """Return the record of this digest, if there is one that can be read."""
        try:
            found: R = self._kind.model_validate_json(self._store.get(self._path(id_)))
        except (FileNotFoundError, ValidationError):  # or another version wrote it
            return None
        return found

    def enter(self, record: R) -> R:
        """Write a record unless there is one; return the one that counts, the first."""
        data = record.model_dump_json().encode()
        try:
            self._store.put(self._path(record.id), data, overwrite=False)
        except FileExistsError:
            return self.find(record.id) or record
        return record

    def _path(self, id_: str) -> str:
        return f"{self._folder}/{id_}.json"


def read_listed(data: bytes, kind: type[R]) -> tuple[R, ...]:
    """Return the records that a package's file holds.

    Raises
    ------
    ValidationError
        The file is no JSON list of such records.
    """
    listed: TypeAdapter[tuple[R, ...]] = TypeAdapter(tuple[kind, ...])  # type: ignore[valid-type]
    return listed.validate_json(data)


def write_listed(records: Iterable[MethodRecord] | Iterable[PrecisionRecord]) -> bytes:
    """Return a package's file of records: a JSON list, one record a line."""
    return b"[\n" + b",\n".join(each.model_dump_json().encode() for each in records) + b"\n]\n"
