"""The fleet on Redis: short records there, catalogs by digest in the store."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from threading import Lock

from pydantic import ValidationError
from typing_extensions import override

from service.domain.catalog import Catalog
from service.errors.requests import TooLarge
from service.fleet.base import LOST_LOADS, Fleet, Leave, WorkerRecord
from service.fleet.union import union
from service.redis_server import RedisServer, Script
from service.store.base import BlobStore

Digests = tuple[str, ...]

RECORD_BYTES = 8192
CATALOGS_KEPT = 64
"""Catalogs held in memory; a fleet seldom has more than a few different ones."""

PUBLISH = Script("service.fleet", "publish")
RETIRE = Script("service.fleet", "retire")
WORKERS = Script("service.fleet", "workers")
CATALOGS = Script("service.fleet", "catalogs")
WITHDRAW = Script("service.fleet", "withdraw")
READMIT = Script("service.fleet", "readmit")
BEGIN_LOAD = Script("service.fleet", "begin_load")
HOLD_LOAD = Script("service.fleet", "hold_load")
END_LOAD = Script("service.fleet", "end_load")
FORGIVE_LOADS = Script("service.fleet", "forgive_loads")


class RedisFleet(Fleet):
    """What workers publish; see the port for its promises.

    Parameters
    ----------
    server
        The Redis server, with the clock by which silence is told.
    store
        Where catalogs lie, as ``catalog/{sha256}.json``.

    Notes
    -----
    Thread-safe. Asking for the catalog again costs one call to Redis: what a
    digest names never changes, so catalogs and their unions are remembered.
    """

    def __init__(self, server: RedisServer, store: BlobStore) -> None:
        self._server = server
        self._store = store
        self._stored: str | None = None
        self._lock = Lock()
        self._read = lru_cache(CATALOGS_KEPT)(self._load)
        self._unite = lru_cache(CATALOGS_KEPT)(self._join)

    @override
    def publish(self, worker: WorkerRecord, catalog: Catalog, *, seconds: float) -> None:
        record = worker.model_dump_json()
        if len(record.encode()) > RECORD_BYTES:
            raise TooLarge(
                "The worker serves more model packages than its record holds; use a second pool.",
                limit=RECORD_BYTES,
                observed=len(record.encode()),
            )
        digest, life = self._keep(catalog), round(seconds * 1000)
        self._server.run(PUBLISH, worker.id, life, record, digest, int(worker.loading))

    def _keep(self, catalog: Catalog) -> str:
        """Store a catalog that is not stored yet; return its digest."""
        data = catalog.model_dump_json().encode()
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:
            if self._stored != digest:
                self._store.put(_path(digest), data)
                self._stored = digest
        return digest

    @override
    def retire(self, worker_id: str) -> None:
        self._server.run(RETIRE, worker_id)

    @override
    def workers(self) -> tuple[WorkerRecord, ...]:
        records: list[str] = self._server.run(WORKERS)
        return tuple(WorkerRecord.model_validate_json(each) for each in records)

    @override
    def catalog(self) -> Catalog:
        live, last, withdrawn = (tuple(each) for each in self._server.run(CATALOGS))
        try:
            return self._unite(live, last, withdrawn)
        except FileNotFoundError:
            return union(self._found(live), self._found(last)).without(withdrawn)

    @override
    def withdraw(self, package: str) -> None:
        self._server.run(WITHDRAW, package)

    @override
    def readmit(self, package: str) -> None:
        self._server.run(READMIT, package)

    @override
    def begin_load(self, package: str, worker_id: str, *, seconds: float) -> Leave:
        life = round(seconds * 1000)
        return Leave(self._server.run(BEGIN_LOAD, worker_id, package, life, LOST_LOADS))

    @override
    def hold_load(self, worker_id: str, *, seconds: float) -> None:
        self._server.run(HOLD_LOAD, worker_id, round(seconds * 1000))

    @override
    def end_load(self, worker_id: str) -> None:
        self._server.run(END_LOAD, worker_id)

    @override
    def forgive_loads(self, package: str) -> None:
        self._server.run(FORGIVE_LOADS, package)

    def _found(self, digests: Digests) -> Iterator[Catalog]:
        """Yield those catalogs that the store has."""
        for digest in digests:
            with suppress(FileNotFoundError):
                yield self._read(digest)

    def _join(self, live: Digests, last: Digests, withdrawn: Digests) -> Catalog:
        return union(map(self._read, live), map(self._read, last)).without(withdrawn)

    def _load(self, digest: str) -> Catalog:
        data = self._store.get(_path(digest))
        try:
            return Catalog.model_validate_json(data)
        except ValidationError:
            return Catalog(unavailable={f"catalog {digest[:8]}": "another version wrote it"})


def _path(digest: str) -> str:
    return f"catalog/{digest}.json"
