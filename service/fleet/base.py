"""The fleet's port: who is alive, and what they can do together."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Protocol

from service.domain.catalog import Catalog
from service.domain.value import Value

LOST_LOADS: Final = 2
"""Loads of one package that may end with their worker; after that none is begun."""


class Leave(StrEnum):
    """Whether a worker may load a package now."""

    BEGUN = "begun"  # it is noted that it does
    WAIT = "wait"  # one load ended with its worker, and another is under way
    GIVEN_UP = "given_up"  # as many as may did


class WorkerRecord(Value):
    """A worker as it tells of itself."""

    id: str
    pool: str
    device: str
    started: int
    """Milliseconds since the epoch."""

    version: str
    packages: tuple[str, ...]
    """Digests of the model packages that it can serve."""

    running: int
    slots: int
    draining: bool = False
    loading: bool = False
    """Whether it is starting: it has not yet loaded all that was registered before."""


def least_busy(workers: Iterable[WorkerRecord]) -> WorkerRecord:
    """Return the worker with the fewest jobs for its slots, one that has loaded all before others.

    There must be one.
    """
    return min(workers, key=lambda each: (each.loading, each.running / max(each.slots, 1), each.id))


class Fleet(Protocol):
    """What workers publish.

    Promises: a worker that is silent for the time it announced is gone; the
    last catalog stays readable when no worker is alive, and while all that are alive
    still load, of the models that these do not tell of yet; what is withdrawn stands in
    no catalog from then on; a package whose loading ends worker after worker is given
    up. A worker loads one package at a time.
    """

    def publish(self, worker: WorkerRecord, catalog: Catalog, *, seconds: float) -> None:
        """Announce a worker for `seconds`; catalogs above 8 KiB lie in the store."""
        ...

    def retire(self, worker_id: str) -> None:
        """Withdraw a worker and its load at once; its catalog stays readable."""
        ...

    def workers(self) -> tuple[WorkerRecord, ...]:
        """List the workers that are alive."""
        ...

    def catalog(self) -> Catalog:
        """Return the union of the live workers' catalogs, or the last known one."""
        ...

    def withdraw(self, package: str) -> None:
        """Leave a package out of the catalog at once, whoever tells of it; forgive its loads."""
        ...

    def readmit(self, package: str) -> None:
        """Have a package count again in the catalog; of one not withdrawn nothing changes."""
        ...

    def begin_load(self, package: str, worker_id: str, *, seconds: float) -> Leave:
        """Note that a worker begins to load a package, unless too many such loads were lost.

        A load is lost when it was not held for the `seconds` announced, or when its
        worker begins anew without having ended it.
        """
        ...

    def hold_load(self, worker_id: str, *, seconds: float) -> None:
        """Tell that a worker still loads what it noted; a load that was lost stays so."""
        ...

    def end_load(self, worker_id: str) -> None:
        """Take a worker's note back; loads of that package lost before count no more."""
        ...

    def forgive_loads(self, package: str) -> None:
        """Have a package that was given up tried anew."""
        ...
