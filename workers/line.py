"""The line: the stages of one job in order. Read this first.

Each stage takes the parcel of the stage before (:mod:`workers.parcels`).
Whatever goes wrong becomes a failure in the job's record; nothing is left in
the scratch folder, and nothing is published under a lease that was lost.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from service.domain.explanation import Explanation
from service.domain.job import Stage, State
from service.errors.base import Failure, Kind, WhylightError
from service.errors.jobs import Cancelled, DeadlineExceeded, Draining
from service.errors.requests import NotFound
from service.queue.base import JobQueue, Outcome
from service.settings import Settings
from service.store.base import BlobStore
from service.telemetry import JOBS_FINISHED, JOBS_REDELIVERED, STAGE_SECONDS, Log
from workers.access import Access
from workers.binding import Seen
from workers.document import Ending, finished, unfinished
from workers.held import Held, LeaseLost
from workers.leeway import BATCHES, leeway
from workers.patience import patiently
from workers.scheduler import Scheduler
from workers.scratch import job_folder
from workers.shelf import Shelf
from workers.slots import Slots
from workers.stages.attribute import attribute
from workers.stages.decode import decode
from workers.stages.deliver import deliver_document, deliver_files, prefix_of
from workers.stages.fetch import fetch
from workers.stages.judge import judge
from workers.stages.prepare import prepare
from workers.stages.render import render

T = TypeVar("T")

PAUSE: Final = 2.0
"""Seconds before a job that must wait goes back, so that it does not spin."""

STORE_PATIENCE: Final = 20.0
"""Seconds for which results wait here for the store to come back."""

INTERNAL: Final = WhylightError(
    "The service failed by a fault of its own; tell the operator the explanation's id."
).failure()


@dataclass(frozen=True, slots=True)
class Line:
    """What every job's line needs."""

    queue: JobQueue
    store: BlobStore
    shelf: Shelf
    scheduler: Scheduler
    slots: Slots
    scratch: Path
    settings: Settings
    log: Log
    seen: Seen
    """The maps that this worker made before."""

    given_up: threading.Event
    """Set when the worker's grace is over: nothing is waited for any more."""

    def lead(self, held: Held) -> None:
        """Lead one job from its lease to its settlement.

        Raises
        ------
        WhylightError
            Redis did not answer until the worker's grace was over; the job's
            lease will end by itself.
        """
        job = held.lease.job
        self.log.info("leased", job=job.id, attempt=job.attempt, model=job.model)
        if job.attempt > 1:
            JOBS_REDELIVERED.inc()
        try:
            with job_folder(self.scratch) as folder:
                explanation = self._walk(held, folder)
            self._settle(held, explanation)
        except LeaseLost:
            self._withdraw(held)
        except Draining:
            self._release(held)
        except Cancelled as error:
            self._close(held, "cancelled", error.failure())
        except WhylightError as error:
            self._fail(held, error.failure())
        except Exception as error:  # noqa: BLE001 - the job must end, whatever the bug
            self.log.bug(error, job=job.id)
            self._close(held, "failed", INTERNAL)

    def _walk(self, held: Held, folder: Path) -> Explanation:
        """Take the job through its stages; nobody sees a result yet."""
        lease, worker = held.lease, self.settings.worker
        deadline = time.monotonic() + worker.job_limit.total_seconds()
        model = self.shelf.get(lease.job.package)
        with held.stage(Stage.FETCH):
            fetched = fetch(lease, model.manifest, self.store, folder, held.advance)
        with held.stage(Stage.DECODE):
            decoded = decode(
                fetched,
                self.slots,
                max_samples=self.settings.limits.pixels,
                max_voxels=self.settings.limits.voxels,
                limit=worker.decode_limit.total_seconds(),
                on_progress=held.advance,
            )
        held.allow(leeway(decoded.facts.shape))
        with held.stage(Stage.PREPARE):
            prepared = prepare(decoded, self.slots, on_progress=held.advance)
        with self.shelf.lent(lease.job.package, lambda: _wait(held, deadline)) as model:
            access = Access(model, self.scheduler, held, deadline).beside(prepared)
            held.allow(BATCHES * model.replicas.slowest)
            with held.stage(Stage.ATTRIBUTE):
                attributed = attribute(prepared, access)
            with held.stage(Stage.JUDGE):
                judged = judge(attributed, access, self.seen)
        with held.stage(Stage.RENDER):
            rendered = render(judged, self.slots, model.ref, on_progress=held.advance)
        with held.stage(Stage.DELIVER):
            self._store(held, lambda: deliver_files(rendered, lease, self.store))
        return finished(held, rendered, model)

    # ------------------------------------------------------------ how jobs end

    def _settle(self, held: Held, explanation: Explanation) -> None:
        """Publish: the document first, then the record that points to it."""
        prefix = self._store(held, lambda: deliver_document(explanation, held.lease, self.store))
        state, failure = State(explanation.state), explanation.failure
        self._commit(held, Outcome(state, prefix, partial=explanation.partial, failure=failure))

    def _fail(self, held: Held, failure: Failure) -> None:
        """End a failed job; one that only has to wait goes back to the queue."""
        if failure.kind is not Kind.WAIT:
            self._close(held, "failed", failure)
            return
        self.given_up.wait(PAUSE)
        self._release(held, failure.code)

    def _close(self, held: Held, ending: Ending, failure: Failure) -> None:
        """End a job that has no results; its document is written if it can be."""
        prefix = None
        try:
            self.store.purge(prefix_of(held.lease))  # artifacts that nobody will see
            explanation = unfinished(held, ending, failure)
            prefix = deliver_document(explanation, held.lease, self.store)
        except WhylightError as error:  # the record alone tells of it then
            self.log.warning("dependency_down", dependency="store", code=error.code)
        except Exception as error:  # noqa: BLE001 - the job must end, whatever the bug
            self.log.bug(error, job=held.lease.job.id)
        self._commit(held, Outcome(State(ending), prefix, failure=failure))

    def _commit(self, held: Held, outcome: Outcome) -> None:
        """Settle the record by its token; a silent Redis is waited for."""
        if not patiently(lambda: self.queue.settle(held.lease, outcome), self.given_up):
            self._withdraw(held)
            return
        code = outcome.failure.code if outcome.failure else ""
        JOBS_FINISHED.labels(state=outcome.state.value, error_type=code).inc()
        for stage, seconds in held.timings.items():
            STAGE_SECONDS.labels(stage=stage).observe(seconds)
        self.log.info(
            "settled",
            job=held.lease.job.id,
            state=outcome.state.value,
            code=code or None,
            seconds=round(sum(held.timings.values()), 3),
        )

    def _release(self, held: Held, code: str = Draining.code) -> None:
        """Give the job back; it runs elsewhere, and this attempt is not counted."""
        with suppress(WhylightError):  # a silent store must not keep the job from others
            self.store.purge(prefix_of(held.lease))
        patiently(lambda: self.queue.release(held.lease), self.given_up)
        self.log.info("released", job=held.lease.job.id, reason=code)

    def _withdraw(self, held: Held) -> None:
        """Leave nothing behind under a lease that was lost."""
        job, prefix = held.lease.job, prefix_of(held.lease)
        try:
            published = patiently(lambda: self.queue.get(job.tenant, job.id), self.given_up).result
        except NotFound:
            published = None
        if published != prefix:  # else it was settled, and only the answer was lost
            self.store.purge(prefix)
            self.log.warning("lease_lost", job=job.id)

    def _store(self, held: Held, write: Callable[[], T]) -> T:
        """Write results, waiting a little for a silent store."""
        return patiently(write, self.given_up, seconds=STORE_PATIENCE, check=held.check)


def _wait(held: Held, deadline: float) -> None:
    """Have a job wait for its model, as long as it may go on."""
    held.advance(0.0)
    if time.monotonic() > deadline:
        raise DeadlineExceeded("The job's time was up before there was room for its model.")
