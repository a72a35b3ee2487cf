"""Removes what has had its time: studies, results, and what a crash left behind."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from service import paths
from service.backends import Backends
from service.domain.job import Job
from service.explain import Explain
from service.keys import KeyRing
from service.redis_server import Clock
from service.settings import Settings
from service.store.base import Blob, BlobStore
from service.telemetry import OBJECTS_PURGED, Log


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed."""

    studies: int
    jobs: int
    objects: int


class Sweeper:
    """Sweeps the folders of every tenant that has, or had, a key.

    A study goes `inputs_for` after it came in and after its last job ended;
    results go `results_for` after they were written. Objects without a record
    are swept by the same times: they are what a crash left behind.

    Parameters
    ----------
    backends
        Queue, store and keys.
    explain
        Knows which jobs a study has.
    settings
        The times.
    clock
        Milliseconds since the epoch.
    """

    def __init__(
        self, backends: Backends, explain: Explain, settings: Settings, clock: Clock
    ) -> None:
        self._store: BlobStore = backends.store
        self._keys: KeyRing = backends.keys
        self._explain = explain
        self._inputs_for = settings.store.inputs_for / timedelta(seconds=1)
        self._results_for = settings.store.results_for / timedelta(seconds=1)
        self._clock = clock
        self._log = Log()

    def sweep(self) -> Swept:
        """Remove what has had its time; safe beside other sweeps."""
        studies = jobs = objects = 0
        for tenant in sorted({each.tenant for each in self._keys.list()}):
            for study_id in list(self._old_studies(tenant)):
                objects += self._explain.studies.remove(tenant, study_id)
                studies += 1
            for job_id in list(self._old(f"{tenant}/jobs", self._results_for)):
                objects += self._store.purge(paths.job(tenant, job_id))
                jobs += 1
        OBJECTS_PURGED.labels(kind="expired").inc(objects)
        self._log.info("swept", studies=studies, jobs=jobs, objects=objects)
        return Swept(studies, jobs, objects)

    def _old_studies(self, tenant: str) -> Iterator[str]:
        """Iterate over studies that are old and were not explained lately."""
        for study_id in self._old(paths.studies(tenant), self._inputs_for):
            if all(map(self._ended_long_ago, self._explain.jobs_of(tenant, study_id))):
                yield study_id

    def _ended_long_ago(self, job: Job) -> bool:
        ended = job.ended
        return ended is not None and ended / 1000 < self._now() - self._inputs_for

    def _old(self, folder: str, seconds: float) -> Iterator[str]:
        """Iterate over the names in `folder` below which nothing is young."""
        newest: dict[str, float] = defaultdict(float)
        for blob in self._store.list(folder):
            name = _name_below(folder, blob)
            newest[name] = max(newest[name], blob.modified)
        limit = self._now() - seconds
        return (name for name, modified in newest.items() if modified < limit)

    def _now(self) -> float:
        return self._clock() / 1000


def _name_below(folder: str, blob: Blob) -> str:
    """Return the part of a path that follows `folder`."""
    return blob.path.removeprefix(f"{folder}/").partition("/")[0]
