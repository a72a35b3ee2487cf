"""What was measured of methods in bfloat16, and what was asked for and is not measured yet.

Both lie in the store: a worker measures what any gateway was asked for, and
every worker reads what one has measured.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from pydantic import ValidationError

from service.domain.canonical import digest_of
from service.domain.precision import PrecisionRecord
from service.domain.request import MethodChoice
from service.records import Records
from service.store.base import BlobStore

WISHES: Final = "models/wishes"

MOST: Final = 64
"""Wishes of one package that are kept: each costs a worker minutes."""


class PrecisionRecords(Records[PrecisionRecord]):
    """The records of an installation."""

    def __init__(self, store: BlobStore) -> None:
        super().__init__(store, PrecisionRecord, "models/precisions")


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
