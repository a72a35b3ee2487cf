"""Runs the plans of jobs: queues what they ask for, and hands on what was served.

A plan is foreign code: whatever it raises ends that plan alone.
"""

import math
import time
from collections.abc import Callable
from traceback import clear_frames
from typing import Final

from service.errors.base import WhylightError
from service.errors.jobs import DeadlineExceeded
from service.errors.models import DoesNotFit, MethodError
from workers.batches import Portion
from workers.device import is_out_of_memory, release_memory
from workers.passes import Exclusive, Pass, TimeUp
from workers.running import Item, Job, Loan, Rider, Run
from workers.runtimes.base import Segment, Served
from workers.union import joined, step_of, work_of

LATE: Final = (
    "The job's time was up before the method was done; ask for fewer targets or a cheaper method,"
    " or have the operator raise WHYLIGHT_WORKER__JOB_LIMIT."
)


class Plans:
    """What plans are told, and what they want next; for the owner thread alone.

    Parameters
    ----------
    on_bug
        Called with an unforeseen exception of a plan and the job's identifier.
    """

    def __init__(self, on_bug: Callable[[Exception, str], None]) -> None:
        self._on_bug = on_bug

    def resume(self, job: Job, run: Run) -> None:
        """Run a plan to its next passes or to its end."""
        answer = run.resumption if run.answers else None
        began = time.perf_counter()
        try:
            asked = run.plan.send(answer)
            self._enqueue(job, run, asked)
        except StopIteration as stop:
            run.end(stop.value)
            job.drop(run)
        except Exception as error:  # noqa: BLE001 - a plan is foreign code
            self._fail(job, run, error)
        job.charge(time.perf_counter() - began)

    def _enqueue(self, job: Job, run: Run, asked: Pass | tuple[Pass, ...]) -> None:
        """Queue what a plan asks for, on rows already asked for where they are the same."""
        asks = asked if isinstance(asked, tuple) else (asked,)
        if not asks:
            raise MethodError("The method asked for no pass.")
        run.wait_for(len(asks), single=not isinstance(asked, tuple))
        for slot, ask in enumerate(asks):
            if isinstance(ask, Exclusive):
                run.asked += ask.rows
                job.items.append(Loan(run, slot, ask))
            else:
                self._enqueue_rows(job, Rider(run, slot, ask))
        run.expected = max(run.expected, run.asked)

    def _enqueue_rows(self, job: Job, rider: Rider) -> None:
        """Ride on an item of identical rows, or become one."""
        ask, run = rider.ask, rider.run
        if ask.rows.count < 1:
            raise MethodError("The method asked for no rows.")
        run.asked += ask.rows.count
        item = job.item_of(ask)
        riders = [rider] if item is None else [*item.riders, rider]
        work = work_of([each.ask for each in riders])
        group = job.runtime.group(work)
        if item is None:
            job.items.append(Item(work, riders, group))
        else:
            item.work, item.riders, item.group = work, riders, group

    def _fail(self, job: Job, run: Run, error: Exception) -> None:
        """End one plan by an error; its own cleanup has run when this returns."""
        run.close()
        run.end(self._told(job, error))
        job.drop(run)

    def _told(self, job: Job, error: Exception) -> WhylightError:
        """Return what a plan that failed is told, without what its frames hold."""
        if isinstance(error, WhylightError):
            return error.with_traceback(None)
        if not is_out_of_memory(error):
            self._on_bug(error, job.id)
            return MethodError("The method failed by a fault of its own.")
        clear_frames(error.__traceback__)
        release_memory(job.runtime.device)
        return DoesNotFit("The method's own work does not fit the device's memory.")

    def deliver(self, portion: Portion, answer: Served | Exception) -> None:
        """Hand rows that were served, or their failure, to everyone who rides on them."""
        item, job = portion.item, portion.job
        if isinstance(answer, Exception):
            self._fail_item(job, item, answer)
            return
        item.handed += portion.segment.count
        for rider in tuple(item.riders):
            self._hand_over(job, rider, item, answer, portion.segment)
        if item.handed == item.work.rows.count and item.riders:
            job.items.remove(item)
            for rider in tuple(item.riders):
                self._complete(job, rider, item.work.rows.count)

    def _hand_over(
        self, job: Job, rider: Rider, item: Item, served: Served, segment: Segment
    ) -> None:
        """Give one rider its step of a chunk; an ended plan's other passes are silent."""
        if rider.run.ended:
            return
        began = time.perf_counter()
        try:
            step = step_of(rider.ask, item.work, served, segment.start, segment.count)
            if rider.ask.fold is None:
                rider.chunks.append(step)
            else:
                rider.ask.fold(segment.start, step)
        except Exception as error:  # noqa: BLE001 - a plan's fold is foreign code
            self._fail(job, rider.run, error)
            return
        job.charge(time.perf_counter() - began)
        rider.run.done += segment.count
        job.rows += segment.count

    def _complete(self, job: Job, rider: Rider, count: int) -> None:
        """Answer one pass; resume its plan when that was the last it waited for."""
        rider.run.answer(rider.slot, joined(rider.chunks, count))
        if rider.run.open == 0:
            self.resume(job, rider.run)

    def _fail_item(self, job: Job, item: Item, error: Exception) -> None:
        """Fail the plan at fault; where several ride, let each try alone to find it."""
        if not item.riders:  # another of the same plan's passes has failed before
            return
        where = job.items.index(item)
        job.items.remove(item)
        if len(item.riders) == 1:
            self._fail(job, item.riders[0].run, error)
            return
        alone: list[Item | Loan] = []
        faults: list[tuple[Run, Exception]] = []
        for rider in item.riders:
            work = work_of([rider.ask])
            try:
                group = job.runtime.group(work)
            except Exception as fault:  # noqa: BLE001 - a model may be run to tell: foreign code
                faults.append((rider.run, fault))
                continue
            alone.append(Item(work, [rider], group, next=item.next, handed=item.next))
        job.items[where:where] = alone
        for run, raised in faults:
            self._fail(job, run, raised)

    def lend(self, job: Job, loan: Loan) -> None:
        """Lend the model to one plan for its bounded time."""
        job.items.remove(loan)
        seconds = loan.exclusive.seconds
        deadline = math.inf if job.deadline is None else job.deadline
        until = min(time.monotonic() + seconds, deadline)
        began = time.perf_counter()
        try:
            given = job.runtime.lend(loan.exclusive, until)
        except TimeUp:
            if until < deadline:
                self._fail(job, loan.run, DeadlineExceeded(_overdrawn(seconds)))
            else:  # the job's own end: the next turn tells all of its plans
                job.items.append(loan)
        except Exception as error:  # noqa: BLE001 - lent work is foreign code
            self._fail(job, loan.run, error)
        else:
            loan.run.done += loan.exclusive.rows
            loan.run.answer(loan.slot, given)
            if loan.run.open == 0:
                self.resume(job, loan.run)
        job.charge(time.perf_counter() - began)

    def end_late(self, job: Job) -> None:
        """Tell each plan that time is up; it may return a partial result."""
        for run in job.runs:
            if run.ended:
                continue
            try:
                run.plan.throw(TimeUp)
            except StopIteration as stop:
                run.end(stop.value)
            except Exception as error:  # noqa: BLE001 - a plan is foreign code
                if not isinstance(error, TimeUp):
                    self._on_bug(error, job.id)


def _overdrawn(seconds: float) -> str:
    """Return what is told of work that did not give the model back in time."""
    return (
        f"The model is lent to one job alone for {seconds:g} s at most, and the method was not done"
        " with it by then; ask for another method, or have the operator use a faster machine."
    )
