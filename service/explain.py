"""The use cases: ask, follow, cancel, collect, purge. No web framework here."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from service import paths
from service.backends import Backends
from service.domain.explanation import Explanation
from service.domain.ids import ALPHABET, LENGTH
from service.domain.job import Job, State
from service.errors.requests import Conflict, NotFound
from service.keys import Caller
from service.queue.base import Event, Filter, Page
from service.redis_server import Clock
from service.results import Results
from service.settings import Settings
from service.studies import Studies
from service.submissions import PREFIX, Submissions
from service.telemetry import Log

_ID = re.compile(rf"{PREFIX}_[{ALPHABET}]{{{LENGTH}}}")


@dataclass(frozen=True, slots=True)
class Followed:
    """A job as it is now."""

    job: Job
    position: int | None
    """Jobs of the same tenant and priority that wait before it."""

    explanation: Explanation | None
    """The finished document, once there is one."""


class Explain:
    """What can be done with explanations and their studies.

    Parameters
    ----------
    backends
        Queue, fleet, store.
    settings
        Limits and times.
    clock
        Milliseconds since the epoch.

    Attributes
    ----------
    studies
        What is explained.
    submissions
        Studies and requests on their way in.
    results
        What ended jobs left.

    Notes
    -----
    Thread-safe. Every method takes the tenant from the caller's key; what is
    another tenant's is `NotFound`.
    """

    def __init__(
        self,
        backends: Backends,
        settings: Settings,
        clock: Clock = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._queue = backends.queue
        self._store = backends.store
        self._log = Log()
        self.studies = Studies(backends.store, settings, clock)
        self.submissions = Submissions(backends, settings.limits, self.studies, clock)
        self.results = Results(backends.store)

    def follow(self, caller: Caller, job_id: str) -> Followed:
        """Return a job as it is now, with its document when it has one.

        Raises
        ------
        NotFound
            There is no such job, or it is another tenant's.
        Gone
            Its results were removed after their time.
        ResultDamaged
            Its document was changed, or is another job's.
        """
        job = self._job(caller, job_id)
        waits = job.state is State.QUEUED
        position = self._queue.position(caller.tenant, job_id) if waits else None
        return Followed(job, position, self.results.document(job))

    def glance(self, caller: Caller, job_id: str) -> Job:
        """Return a job's record alone: one question to the queue. Errors as of `follow`."""
        return self._job(caller, job_id)

    def list(
        self, caller: Caller, which: Filter, *, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """List a tenant's jobs, newest first."""
        return self._queue.list(caller.tenant, which, limit=limit, cursor=cursor)

    def events(self, caller: Caller, job_id: str, *, after: str | None = None) -> tuple[Event, ...]:
        """Return a job's events after the one with id `after`. Errors as of `follow`."""
        _check_id(job_id)
        return self._queue.events(caller.tenant, job_id, after=after)

    def cancel(self, caller: Caller, job_id: str) -> Job:
        """Cancel a job; return it as it now is. Errors as of `follow`."""
        _check_id(job_id)
        job = self._queue.cancel(caller.tenant, job_id)
        self._log.info("job_cancelled", job=job_id, tenant=caller.tenant, key=caller.key)
        return job

    def purge(self, caller: Caller, job_id: str) -> int:
        """Remove an ended job with its results; return how many objects it had.

        Raises
        ------
        Conflict
            The job has not ended.
        NotFound
            As of `follow`.
        """
        job = self._job(caller, job_id)
        if not job.state.ended:
            raise Conflict("The job has not ended; cancel it first.", state=job.state.value)
        count = self._store.purge(paths.job(caller.tenant, job_id))
        self._queue.forget(caller.tenant, job_id)
        self._log.info(
            "job_purged", job=job_id, tenant=caller.tenant, key=caller.key, objects=count
        )
        return count

    def purge_study(self, caller: Caller, study_id: str) -> int:
        """Remove a study; return how many objects it had.

        Raises
        ------
        Conflict
            A job that needs it has not ended.
        NotFound
            There is no such study, or it is another tenant's.
        """
        self.studies.get(caller.tenant, study_id)
        for state in (State.RUNNING, State.QUEUED):
            for job in self.jobs_of(caller.tenant, study_id, state):
                raise Conflict(
                    "A job that needs the study has not ended; cancel it first.", job=job.id
                )
        count = self.studies.purge(caller.tenant, study_id)
        self._log.info(
            "study_purged", study=study_id, tenant=caller.tenant, key=caller.key, objects=count
        )
        return count

    def jobs_of(self, tenant: str, study_id: str, state: State | None = None) -> Iterator[Job]:
        """Iterate over the jobs that explain a study, newest first."""
        cursor: str | None = None
        while True:
            page = self._queue.list(tenant, Filter(study=study_id, state=state), cursor=cursor)
            yield from page.jobs
            cursor = page.cursor
            if cursor is None:
                return

    def _job(self, caller: Caller, job_id: str) -> Job:
        _check_id(job_id)
        return self._queue.get(caller.tenant, job_id)


def _check_id(job_id: str) -> None:
    """Refuse what can be no job's identifier before it becomes part of a key."""
    if not _ID.fullmatch(job_id):
        raise NotFound("There is no such explanation.")
