"""Records of what was measured of methods on models: kept by what they depend on."""

from collections.abc import Iterable
from typing import Final

from pydantic import TypeAdapter, ValidationError

from service.domain.certificate import MethodRecord
from service.store.base import BlobStore

FOLDER: Final = "models/certificates"

_RECORDS: Final = TypeAdapter(tuple[MethodRecord, ...])


class MethodRecords:
    """The records of an installation; every worker reads what one has measured."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def find(self, id_: str) -> MethodRecord | None:
        """Return the record of this digest, if there is one that can be read."""
        try:
            return MethodRecord.model_validate_json(self._store.get(_path(id_)))
        except (FileNotFoundError, ValidationError):  # or another version wrote it
            return None

    def enter(self, record: MethodRecord) -> MethodRecord:
        """Write a record unless there is one; return the one that counts, the first."""
        try:
            self._store.put(_path(record.id), record.model_dump_json().encode(), overwrite=False)
        except FileExistsError:
            return self.find(record.id) or record
        return record


def read_records(data: bytes) -> tuple[MethodRecord, ...]:
    """Return the records that a package's file of role ``certificates`` holds.

    Raises
    ------
    ValidationError
        The file is no JSON list of records.
    """
    return _RECORDS.validate_json(data)


def write_records(records: Iterable[MethodRecord]) -> bytes:
    """Return a package's file of role ``certificates``: a JSON list, one record a line."""
    return b"[\n" + b",\n".join(each.model_dump_json().encode() for each in records) + b"\n]\n"


def _path(id_: str) -> str:
    return f"{FOLDER}/{id_}.json"
