"""Registrations: model packages that come and go, and the probe of each."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.backends import Backends
from service.domain.job import INSTALLATION, Job, JobKind, State
from service.errors.requests import Conflict, NotFound
from service.fleet.base import WorkerRecord, least_busy
from service.packages import ModelPackages, PackageRecord
from service.redis_server import Clock
from service.settings import LimitSettings
from service.telemetry import Log

PREFIX: Final = "pr"
"""What the identifiers of probes begin with; a package's digest follows, so it has one at most."""

NOTHING_KNOWN: Final = 0
"""Device time of a probe, for the queue's estimates: what it takes is part of what it finds."""


class Registrations:
    """Registers packages, and has each probed.

    A probe is a job: one worker of the model's pool takes the package in and tells
    whether it serves. The others follow the store, for each has to load it itself.

    Parameters
    ----------
    backends
        Queue and fleet.
    packages
        Where packages lie.
    pool
        Pool of a probe that is asked for while no worker is alive.
    clock
        Milliseconds since the epoch.

    Notes
    -----
    Thread-safe.
    """

    def __init__(
        self,
        backends: Backends,
        packages: ModelPackages,
        pool: str,
        clock: Clock = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._queue = backends.queue
        self._fleet = backends.fleet
        self._packages = packages
        self._pool = pool
        self._clock = clock
        self._log = Log()

    def add(
        self,
        zip_path: Path,
        limits: LimitSettings,
        *,
        ref: str,
        tenants: tuple[str, ...] | None = None,
    ) -> tuple[PackageRecord, Job | None]:
        """Register a package and queue its probe; a package that a worker serves needs none.

        One whose probe waits or runs keeps it. One that was registered before and is
        not served is tried anew, by every worker.

        Returns
        -------
        The package and its probe; `None` instead of a probe while a worker serves it.

        Raises
        ------
        WhylightError
            Those of `ModelPackages.add`, and of `JobQueue.submit`: the package is
            registered then, and workers find it; put again, its probe is queued.
        """
        record = self._packages.add(zip_path, limits, ref=ref, tenants=tenants)
        self._fleet.readmit(record.package)
        workers = [each for each in self._fleet.workers() if not each.draining]
        under_way = self._under_way(record.package, workers)
        if any(record.package in each.packages for each in workers):
            return record, None
        return (record, under_way) if under_way is not None else self._anew(record, workers)

    def remove(self, name: str, version: str) -> None:
        """Withdraw a package with its probe.

        Raises
        ------
        UnknownModel
            No such name, or no such version of it.
        """
        record = self._packages.get(name, version)
        self._fleet.withdraw(record.package)  # first: what fails after it can be asked again
        self._packages.remove(name, version)
        if self.probe(record.package) is not None:
            self._queue.cancel(INSTALLATION, _id(record.package))

    def probe(self, package: str) -> Job | None:
        """Return the last probe of a package; `None` if there is none, or none any more."""
        try:
            return self._queue.get(INSTALLATION, _id(package))
        except NotFound:
            return None

    def crew(self, probe: Job) -> Sequence[WorkerRecord]:
        """Return the workers that are alive and could run a probe."""
        workers = self._fleet.workers()
        return [each for each in workers if each.pool == probe.pool and not each.draining]

    def _under_way(self, package: str, workers: Sequence[WorkerRecord]) -> Job | None:
        """Return a probe that waits or runs; one that is stranded ends, for another."""
        probe = self.probe(package)
        if probe is not None and _stranded(probe, workers):
            probe = self._queue.cancel(INSTALLATION, probe.id)
        return None if probe is None or probe.state.ended else probe

    def _anew(
        self, record: PackageRecord, workers: Sequence[WorkerRecord]
    ) -> tuple[PackageRecord, Job]:
        """Queue a probe in place of one that ended; what workers knew of the package is over."""
        with suppress(NotFound, Conflict):  # none before, or another registration was quicker
            self._queue.forget(INSTALLATION, _id(record.package))
        self._fleet.forgive_loads(record.package)
        if any(each.package == record.package for each in self._fleet.catalog().models):
            record = self._packages.renew(record)
        return record, self._queued(record, least_busy(workers).pool if workers else self._pool)

    def _queued(self, record: PackageRecord, pool: str) -> Job:
        ref = f"{record.name}@{record.version}"
        job = Job(
            id=_id(record.package),
            kind=JobKind.PROBE,
            tenant=INSTALLATION,
            pool=pool,
            created=self._clock(),
            cost=NOTHING_KNOWN,
            model=ref,
            package=record.package,
        )
        submitted = self._queue.submit(job, digest=record.package)
        if not submitted.replayed:
            self._log.info("job_submitted", job=job.id, model=ref, pool=pool)
        return submitted.job


def _id(package: str) -> str:
    return f"{PREFIX}_{package}"


def _stranded(probe: Job, workers: Sequence[WorkerRecord]) -> bool:
    """Tell whether a probe waits where no worker is, while there are some elsewhere."""
    waits = probe.state is State.QUEUED
    return waits and bool(workers) and all(each.pool != probe.pool for each in workers)
