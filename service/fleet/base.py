"""The fleet's port: who is alive, and what they can do together."""

from typing import Protocol

from service.domain.catalog import Catalog
from service.domain.value import Value


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


class Fleet(Protocol):
    """What workers publish.

    Promises: a worker that is silent for the time it announced is gone; the
    last catalog stays readable when no worker is alive.
    """

    def publish(self, worker: WorkerRecord, catalog: Catalog, *, seconds: float) -> None:
        """Announce a worker for `seconds`; catalogs above 8 KiB lie in the store."""
        ...

    def retire(self, worker_id: str) -> None:
        """Withdraw a worker at once; its catalog stays readable."""
        ...

    def workers(self) -> tuple[WorkerRecord, ...]:
        """List the workers that are alive."""
        ...

    def catalog(self) -> Catalog:
        """Return the union of the live workers' catalogs, or the last known one."""
        ...
