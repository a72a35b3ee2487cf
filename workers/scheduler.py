"""Merges the passes of many jobs into full batches.

One scheduler has one owner thread, in which every plan, row set, fold and
model runs; other threads only hand jobs in and take reports out::

    scheduler = Scheduler(slice_seconds=0.05)
    threading.Thread(target=scheduler.run_forever).start()

    runtime = scheduler.call(lambda: load(package)).result()      # in the owner thread
    ticket = scheduler.submit(
        "job-1",
        runtime,
        [Planned(method.plan(image, targets), rows=method.estimate(image.shape, 1).rows)],
        deadline=time.monotonic() + 60,
        on_progress=lambda share: ...,                            # in the owner thread: be quick
    )
    report = ticket.result(timeout=90)                            # outcome: `Maps` or an error
    scheduler.stop(drain=True)

`image` must lie on ``runtime.device``. All plans of one submit share rows: a
plan that asks for the raw outputs of ``Clean(image)`` costs nothing beside a
gradient method on the same image tensor. When targets depend on the outputs
(``top1``), submit that plan alone first.

Each turn: cancelled and late jobs end; the job with the least device time by
weight leads; what its plan with the least left to do waits for says what may
share the batch; the batch has as many rows as memory, the best measured chunk
and the time slice allow, in equal shares for all jobs that fit in. A failure is
that of the plan that caused it: the outcomes of a report fail one by one.
Whatever a model raises, measured, served or checked, ends those who use it, and
never the loop; only a device that is lost does.

On CUDA a batch is launched before the one before it is handed on, so that the
device never waits for plans. What a batch gave is known one batch late: its
scores, and so whether they are finite, its time, and what plans ask next. That
it does not fit, or that the model raises, is known at once, as on a CPU.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from service.errors.base import WhylightError
from service.errors.jobs import Cancelled, DeadlineExceeded, Draining
from service.errors.models import MethodError, ModelUnavailable
from workers.batches import Batches, Flight, OnBatch, unlimited, untold
from workers.device import DeviceLostError, is_device_fault
from workers.plans import LATE, Plans
from workers.running import Item, Job, Loan, Planned, Report, runs_of
from workers.runtimes.base import ReplicaChangedError, Runtime

R = TypeVar("R")

CHANGED: Final = ModelUnavailable("The model was changed while it ran and is being reloaded.")

UNCHECKED: Final = ModelUnavailable(
    "Whether the model was changed while it ran cannot be told; it is being reloaded."
)

SLICE: Final = 0.05
"""Seconds of device time to a batch: what a job arriving among others may have to wait."""


class WrongThreadError(RuntimeError):
    """Someone else than the owner thread tried to run the scheduler."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A function to be run in the owner thread, and who waits for it."""

    function: Callable[[], Any]
    future: "Future[Any]"

    def run(self) -> None:
        """Run it; what it raises is handed to who waits."""
        try:
            self.future.set_result(self.function())
        except Exception as error:  # noqa: BLE001 - it is handed over
            self.future.set_exception(error)


class Scheduler:
    """The device loop of one process.

    Parameters
    ----------
    slice_seconds
        Longest a batch should take beside other jobs, in seconds; see `Slice`.
    on_lost
        Called with a runtime whose model was found changed; reload it.
    on_bug
        Called with an unforeseen exception of a plan or of a model and the
        job's identifier, for the log.
    on_batch
        Called in the owner thread after each batch, for the metrics.
    memory
        Tells the bytes of the device's memory that a batch may fill at this
        moment; without limit if not given.
    """

    def __init__(
        self,
        *,
        slice_seconds: float = SLICE,
        on_lost: Callable[[Runtime], None] = lambda _: None,
        on_bug: Callable[[Exception, str], None] = lambda _error, _job: None,
        on_batch: OnBatch = untold,
        memory: Callable[[], int] = unlimited,
    ) -> None:
        self._batches = Batches(slice_seconds, on_bug, on_batch, memory)
        self._plans = Plans(on_bug)
        self._on_lost = on_lost
        self._on_bug = on_bug
        self._jobs: list[Job] = []
        self._flight: Flight | None = None
        self._wake = threading.Condition()
        self._arrived: deque[Job | Call] = deque()
        self._cancelled: set[str] = set()
        self._stopping = False
        self._abandoning = False
        self._owner: int | None = None

    # -------------------------------------------------------- from any thread

    def submit(
        self,
        job_id: str,
        runtime: Runtime,
        plans: Sequence[Planned[R]],
        *,
        weight: float = 1.0,
        deadline: float | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> "Future[Report[R]]":
        """Queue plans that share one image; they start with the next turn.

        Parameters
        ----------
        weight
            Share of the device beside other jobs.
        deadline
            Moment of `time.monotonic` at which the job ends.
        on_progress
            Called in the owner thread with the share of rows done, in (0, 1].

        Raises
        ------
        Draining
            If the scheduler was told to stop.
        """
        future: Future[Report[R]] = Future()
        future.set_running_or_notify_cancel()  # `cancel` is the one way to end a job
        job = Job(job_id, runtime, runs_of(plans), weight, deadline, on_progress, future)
        self._hand_in(job)
        return future

    def call(self, function: Callable[[], R]) -> "Future[R]":
        """Run `function` in the owner thread between two turns: load or probe a model."""
        future: Future[R] = Future()
        future.set_running_or_notify_cancel()

        self._hand_in(Call(function, future))
        return future

    def cancel(self, job_id: str) -> None:
        """End a job before its next batch; unknown ones are ignored."""
        with self._wake:
            self._cancelled.add(job_id)
            self._wake.notify()

    def stop(self, *, drain: bool = True) -> None:
        """Take no more jobs; finish those at hand, or end them as draining."""
        with self._wake:
            self._stopping = True
            self._abandoning = self._abandoning or not drain
            self._wake.notify()

    def _hand_in(self, arrival: Job | Call) -> None:
        with self._wake:
            if self._stopping:
                raise Draining("This worker is shutting down; the job runs elsewhere.")
            self._arrived.append(arrival)
            self._wake.notify()

    # ------------------------------------------------------ in the owner thread

    def run_forever(self) -> None:
        """Own the device until `stop`; whatever breaks it ends every job loudly."""
        self._require_owner()
        try:
            while self._wait():
                self.turn()
        except BaseException as error:
            self._break(error)
            raise

    def run_until_idle(self) -> None:
        """Own the device until nothing is left to do."""
        while self.turn():
            pass

    def turn(self) -> bool:
        """Serve one batch; return whether there was anything to serve.

        Raises
        ------
        WrongThreadError
            If another thread ran a turn before.
        DeviceLostError
            If the device itself failed; the process must end.
        """
        self._require_owner()
        self._take_in()
        self._end_due()
        ready = (job for job in self._jobs if job.waiting is not None)
        lead = min(ready, key=lambda job: job.turns, default=None)
        first = None if lead is None else lead.waiting
        if lead is not None and isinstance(first, Item):
            self._batch(lead, first)
        elif self._flight is not None:
            self._land()
        elif lead is not None and isinstance(first, Loan):
            self._plans.lend(lead, first)
            self._after(lead)
        else:
            return False
        return True

    def forget(self, runtime: Runtime) -> None:
        """Drop what was measured of a runtime that is unloaded; owner thread only."""
        self._require_owner()
        self._batches.forget(runtime)

    def _require_owner(self) -> None:
        """Bind the scheduler to the first thread that runs it."""
        me = threading.get_ident()
        if self._owner is None:
            self._owner = me
        if self._owner != me:
            raise WrongThreadError("a scheduler belongs to one thread")

    def _wait(self) -> bool:
        """Wait for something to do; return whether to go on."""
        with self._wake:
            while not (self._jobs or self._arrived or self._stopping):
                self._wake.wait()
            return bool(self._jobs or self._arrived)

    def _take_in(self) -> None:
        """Start what has arrived."""
        while self._arrived:
            arrival = self._arrived.popleft()
            if isinstance(arrival, Job):
                self._start(arrival)
            else:
                arrival.run()

    def _start(self, job: Job) -> None:
        """Enter a job at the turns of those at hand, and its plans at their first pass."""
        job.turns = min((each.turns for each in self._jobs), default=0.0)
        self._jobs.append(job)
        for run in job.runs:
            self._plans.resume(job, run)
        self._after(job)

    def _end_due(self) -> None:
        """End what was cancelled, what is late and, when abandoning, everything."""
        with self._wake:
            cancelled, self._cancelled = self._cancelled, set()
        now = time.monotonic()
        for job in tuple(self._jobs):
            if job.id in cancelled:
                self._close(job, Cancelled("The job was cancelled."))
            elif self._abandoning:
                self._close(job, Draining("This worker is shutting down; try again."))
            elif job.deadline is not None and now > job.deadline:
                self._plans.end_late(job)
                self._close(job, DeadlineExceeded(LATE))

    # ------------------------------------------------------------------- batches

    def _batch(self, lead: Job, first: Item) -> None:
        """Serve one batch of the group of the item that is the lead job's next."""
        flight = self._batches.launch(lead, first, self._jobs)
        self._land()
        self._flight = flight
        if not flight.may_wait:
            self._land()

    def _land(self) -> None:
        """Hand on what the batch gave that is on its way, if there is one."""
        flight, self._flight = self._flight, None
        if flight is None:
            return
        served = self._batches.land(flight)
        for portion, answer in served:
            if answer is not None and portion.job in self._jobs:
                self._plans.deliver(portion, answer)
        for job in dict.fromkeys(portion.job for portion, _ in served):
            self._after(job)

    # ---------------------------------------------------------------------- ends

    def _close(self, job: Job, error: WhylightError) -> None:
        """End all plans of a job that are still at work."""
        for run in job.runs:
            if not run.ended:
                run.close()
                run.end(error)
        job.items.clear()
        self._settle(job)

    def _after(self, job: Job) -> None:
        """Show a job's progress, and settle it when its last plan has ended."""
        if job not in self._jobs:
            return
        if not job.ended and not job.items:  # cannot be: a wait without end
            self._close(job, MethodError("The method waits for nothing."))
        elif job.ended:
            self._settle(job)
        else:
            self._show(job)

    def _show(self, job: Job) -> None:
        try:
            job.tell_progress()
        except Exception as error:  # noqa: BLE001 - progress must not end the work
            job.on_progress = None
            self._on_bug(error, job.id)

    def _settle(self, job: Job) -> None:
        """Report a job, if its replica is unchanged; else drop the replica."""
        error = self._fault_of(job)
        self._jobs.remove(job)
        if error is not None:
            self._drop_replica(job, error)
        self._show(job)
        job.future.set_result(job.report())

    def _fault_of(self, job: Job) -> WhylightError | None:
        """Return what is told of a replica that is not as it was, or cannot be looked at.

        Raises
        ------
        DeviceLostError
            If the device itself failed.
        """
        try:
            job.runtime.check()
        except ReplicaChangedError as error:
            if error.reason is None:
                self._on_bug(error, job.id)
            return error.reason or CHANGED
        except Exception as error:  # noqa: BLE001 - a model is looked at: foreign code
            if is_device_fault(error):
                raise DeviceLostError(type(error).__name__) from None
            self._on_bug(error, job.id)
            return UNCHECKED
        return None

    def _drop_replica(self, job: Job, error: WhylightError) -> None:
        """Fail the job and everyone else on a replica that was changed under them."""
        for run in job.runs:
            run.end(error)
        self._batches.forget(job.runtime)
        for other in [each for each in self._jobs if each.runtime is job.runtime]:
            self._jobs.remove(other)
            for run in other.runs:
                run.close()
                run.end(error)
            other.future.set_result(other.report())
        self._on_lost(job.runtime)

    def _break(self, error: BaseException) -> None:
        """End every job by what broke the loop."""
        with self._wake:
            self._stopping = True
            self._flight = None
            ended = [*self._jobs, *self._arrived]
            self._arrived.clear()
        for each in ended:
            for run in each.runs if isinstance(each, Job) else ():
                run.close()
            each.future.set_exception(error)
        self._jobs.clear()
