"""Cuts batches out of what many jobs wait for, and serves them.

A batch that does not fit is halved; a batch that breaks is bisected. Both are
known when it is launched, on every device; on CUDA the numbers come later, and
with them the time.
"""

import sys
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from traceback import clear_frames
from typing import Final
from weakref import WeakKeyDictionary

from service.errors.base import WhylightError
from service.errors.models import DoesNotFit, ModelError
from workers.device import (
    DeviceLostError,
    Stopwatch,
    is_device_fault,
    is_out_of_memory,
    release_memory,
)
from workers.pace import Pace, Slice
from workers.running import Item, Job
from workers.runtimes.base import Fit, Runtime, Segment, Served

Answer = Served | Exception | None
"""What became of a portion; `None` means not served, to be tried again with fewer rows."""

NO_ROW: Final = "Not even the smallest batch fits the device's memory."


@dataclass(slots=True, eq=False)
class Portion:
    """An item's share of one batch."""

    job: Job
    item: Item
    segment: Segment


@dataclass(frozen=True, slots=True, eq=False)
class Flight:
    """A batch that was launched, and what is known of it by then."""

    portions: tuple[Portion, ...]
    answers: tuple[Answer, ...]
    pace: Pace
    watch: Stopwatch
    began: float
    """Moment of `time.perf_counter`."""

    kind: str
    may_wait: bool
    """Whether the device works on it still, and another batch may be launched meanwhile."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(portion.segment.count for portion in self.portions)


@dataclass(frozen=True, slots=True)
class Batched:
    """What there is to tell of one batch."""

    kind: str
    """``forward`` or ``gradient``."""

    rows: int
    seconds: float
    waits: tuple[float, ...]
    """For each pass that begins here, seconds since it was asked for."""

    halved: bool
    """Whether it did not fit the device and is tried again with fewer rows."""


OnBatch = Callable[[Batched], None]


def untold(_: Batched) -> None:
    """Tell nobody of a batch."""


def unlimited() -> int:
    """Return more bytes than any device has."""
    return sys.maxsize


class Batches:
    """Sizes batches by measurement and serves them.

    Parameters
    ----------
    slice_seconds
        Longest a batch should take beside other jobs; see `Slice`.
    on_bug
        Called with an unforeseen exception of a model and the job's identifier.
    on_batch
        Called in the owner thread after each batch: be quick.
    memory
        Tells the bytes of the device's memory that a batch may fill at this moment.
    """

    def __init__(
        self,
        slice_seconds: float,
        on_bug: Callable[[Exception, str], None],
        on_batch: OnBatch = untold,
        memory: Callable[[], int] = unlimited,
    ) -> None:
        self._on_batch = on_batch
        self._memory = memory
        self._slice = Slice(slice_seconds)
        self._on_bug = on_bug
        self._paces: WeakKeyDictionary[Runtime, dict[Hashable, Pace]] = WeakKeyDictionary()

    def forget(self, runtime: Runtime) -> None:
        """Drop what was measured of a runtime that is unloaded."""
        self._paces.pop(runtime, None)

    def launch(self, lead: Job, first: Item, jobs: Sequence[Job]) -> Flight:
        """Launch one batch of the group of the lead's item `first`.

        A batch of a size that was never timed is to be waited for, so that the next
        one's size is known; and so is one of which anything failed. A model that cannot
        even be measured fails the lead's item alone.

        Raises
        ------
        DeviceLostError
            If the device itself failed.
        """
        try:
            pace = self._pace(lead.runtime, first.group)
        except Exception as error:  # noqa: BLE001 - a model is run to be measured: foreign code
            return self._unmeasured(lead, first, error)
        most = pace.rows(self._slice.seconds(len(jobs)), self._memory())
        portions = _portions(lead, first, jobs, most)
        began, watch = time.perf_counter(), Stopwatch(lead.runtime.device)
        answers = self._serve(lead.runtime, first.group, portions, pace)
        watch.stop()
        for portion, answer in zip(portions, answers, strict=True):
            if isinstance(answer, Served):
                portion.item.next = portion.segment.stop
        rows = sum(portion.segment.count for portion in portions)
        return Flight(
            portions=tuple(portions),
            answers=tuple(answers),
            pace=pace,
            watch=watch,
            began=began,
            kind="gradient" if first.work.at else "forward",
            may_wait=lead.runtime.device.type == "cuda"
            and pace.timed(rows)
            and all(isinstance(answer, Served) for answer in answers),
        )

    def land(self, flight: Flight) -> list[tuple[Portion, Answer]]:
        """Wait for a batch; charge everyone in it, and remember its time.

        Raises
        ------
        DeviceLostError
            If the device failed on the way.
        """
        try:
            seconds = flight.watch.seconds
        except RuntimeError as error:  # nothing else breaks a clock
            raise DeviceLostError(type(error).__name__) from None
        rows, answers = flight.rows, flight.answers
        if all(isinstance(answer, Served) for answer in answers):
            flight.pace.record(rows, seconds)
        for portion in flight.portions:
            portion.job.charge(seconds * portion.segment.count / rows)
        self._on_batch(
            Batched(
                kind=flight.kind,
                rows=rows,
                seconds=seconds,
                waits=tuple(
                    flight.began - each.item.asked
                    for each in flight.portions
                    if each.segment.start == 0
                ),
                halved=None in answers,
            )
        )
        return list(zip(flight.portions, answers, strict=True))

    def _pace(self, runtime: Runtime, group: Hashable) -> Pace:
        paces = self._paces.setdefault(runtime, {})
        if group not in paces:
            paces[group] = Pace(runtime.fits(group))
        return paces[group]

    def _unmeasured(self, lead: Job, first: Item, error: Exception) -> Flight:
        """Return a batch of one row that failed by what measuring its model raised."""
        clear_frames(error.__traceback__)
        if is_device_fault(error):
            raise DeviceLostError(type(error).__name__)
        segment = Segment(first.work, first.next, first.next + 1)
        portion = Portion(lead, first, segment)
        if is_out_of_memory(error):
            release_memory(lead.runtime.device)
            answer: WhylightError = DoesNotFit(NO_ROW)
        else:
            answer = self._model_error(error, portion)
        watch = Stopwatch(lead.runtime.device)
        watch.stop()
        return Flight(
            portions=(portion,),
            answers=(answer,),
            pace=Pace(Fit()),
            watch=watch,
            began=time.perf_counter(),
            kind="gradient" if first.work.at else "forward",
            may_wait=False,
        )

    def _serve(
        self, runtime: Runtime, group: Hashable, portions: Sequence[Portion], pace: Pace
    ) -> list[Answer]:
        """Serve portions; an unforeseen error is narrowed down by halves to the one at fault."""
        trouble: Exception | None = None
        try:
            return list(runtime.serve(group, [portion.segment for portion in portions]))
        except Exception as error:  # noqa: BLE001 - told apart below, outside this block
            trouble = error
        clear_frames(trouble.__traceback__)  # else they keep the failed batch's tensors alive
        if is_device_fault(trouble):
            raise DeviceLostError(type(trouble).__name__)
        if is_out_of_memory(trouble):
            return self._shrink(runtime, portions, pace)
        if len(portions) == 1:
            return [self._model_error(trouble, portions[0])]
        half = len(portions) // 2
        return [
            *self._serve(runtime, group, portions[:half], pace),
            *self._serve(runtime, group, portions[half:], pace),
        ]

    def _shrink(self, runtime: Runtime, portions: Sequence[Portion], pace: Pace) -> list[Answer]:
        """Answer a batch that did not fit: again with half the rows, or not at all."""
        release_memory(runtime.device)
        rows = sum(portion.segment.count for portion in portions)
        if rows > 1 and not pace.fixed:
            pace.shrink(rows)
            return [None] * len(portions)
        return [DoesNotFit(NO_ROW) for _ in portions]

    def _model_error(self, error: Exception, portion: Portion) -> WhylightError:
        """Return what the one portion at fault is told."""
        if isinstance(error, WhylightError):
            return error
        self._on_bug(error, portion.job.id)
        return ModelError("The model failed on this job's rows.")


def fair_shares(budget: int, waiting: Sequence[int]) -> list[int]:
    """Share `budget` rows equally among who waits for how many; the first gets the odd one.

    What one cannot use goes to those who wait for more.
    """
    given = [0] * len(waiting)
    while budget > 0 and sum(given) < sum(waiting):
        hungry = [k for k, want in enumerate(waiting) if given[k] < want]
        each = max(1, budget // len(hungry))
        for k in hungry:
            take = min(each, waiting[k] - given[k], budget)
            given[k] += take
            budget -= take
    return given


def _waiting(job: Job, runtime: Runtime, group: Hashable) -> list[Item]:
    """Return a job's items of one group, in the order in which they are served."""
    if job.runtime is not runtime:
        return []
    return [item for item in job.queue if isinstance(item, Item) and item.group == group]


def _cut(job: Job, items: Sequence[Item], share: int) -> list[Portion]:
    """Cut the next `share` rows out of a job's items, in their order."""
    portions = []
    for item in items:
        count = min(share, item.left)
        if count > 0:
            segment = Segment(item.work, item.next, item.next + count)
            portions.append(Portion(job, item, segment))
            share -= count
    return portions


def _portions(lead: Job, first: Item, jobs: Sequence[Job], budget: int) -> list[Portion]:
    """Give equal shares of `budget` rows to all jobs of the group, the lead first."""
    waiting = [(lead, _waiting(lead, lead.runtime, first.group))]
    if budget > 1:  # one row has one taker
        others = sorted((job for job in jobs if job is not lead), key=lambda j: j.turns)
        waiting += [
            (job, items) for job in others if (items := _waiting(job, lead.runtime, first.group))
        ]
    shares = fair_shares(budget, [sum(item.left for item in items) for _, items in waiting])
    return [
        portion
        for (job, items), share in zip(waiting, shares, strict=True)
        for portion in _cut(job, items, share)
    ]
