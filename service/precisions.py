"""What was measured of methods in bfloat16, and what was asked for and is not measured yet.

Both lie in the store: a worker measures what any gateway was asked for, and
every worker reads what one has measured.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from pydantic import TypeAdapter, ValidationError

from service.domain.canonical import digest_of
from service.domain.precision import PrecisionRecord
from service.domain.request import MethodChoice
from service.store.base import BlobStore

RECORDS: Final = "models/precisions"
WISHES: Final = "models/wishes"

MOST: Final = 64
"""Wishes of one package that are kept: each costs a worker minutes."""

_RECORDS: Final = TypeAdapter(tuple[PrecisionRecord, ...])


class PrecisionRecords:
    """The records of an installation, by what they depend on."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def find(self, id_: str) -> PrecisionRecord | None:
        """Return the record of this digest, if there is one that can be read."""
        try:
            return PrecisionRecord.model_validate_json(self._store.get(f"{RECORDS}/{id_}.json"))
        except (FileNotFoundError, ValidationError):  # or another version wrote it
            return None

    def enter(self, record: PrecisionRecord) -> PrecisionRecord:
        """Write a record unless there is one; return the one that counts, the first."""
        data = record.model_dump_json().encode()
        try:
            self._store.put(f"{RECORDS}/{record.id}.json", data, overwrite=False)
        except FileExistsError:
            return self.find(record.id) or record
        return record


def read_precisions(data: bytes) -> tuple[PrecisionRecord, ...]:
    """Return the records that a package's file of role ``precisions`` holds.

    Raises
    ------
    ValidationError
        The file is no JSON list of records.
    """
    return _RECORDS.validate_json(data)


def write_precisions(records: Iterable[PrecisionRecord]) -> bytes:
    """Return a package's file of role ``precisions``: a JSON list, one record a line."""
    return b"[\n" + b",\n".join(each.model_dump_json().encode() for each in records) + b"\n]\n"


class Wishes:
    """Methods, with the parameters that a request gave, that are wanted in bfloat16."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def enter(self, package: str, choice: MethodChoice) -> None:
        """Keep a wish, unless there is the same or there are too many."""
        folder = f"{WISHES}/{package}"
        if len(list(islice(self._store.list(folder), MOST))) == MOST:
            return
        path = f"{folder}/{digest_of(choice.model_dump(mode='json'))}.json"
        self._store.put(path, choice.model_dump_json().encode())

    def of(self, package: str) -> Iterator[MethodChoice]:
        """Iterate over the wishes of a package; those that another version wrote are left out."""
        for blob in islice(self._store.list(f"{WISHES}/{package}"), MOST):
            try:
                yield MethodChoice.model_validate_json(self._store.get(blob.path))
            except (FileNotFoundError, ValidationError):
                continue
