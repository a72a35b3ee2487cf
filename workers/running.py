"""A job inside the scheduler: its plans, what they wait for, how far they are.

Only the owner thread touches these.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from service.errors.base import WhylightError
from workers.passes import Exclusive, Forward, Gradient, Plan, Step
from workers.runtimes.base import Runtime, Work
from workers.union import rule_of

R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class Planned(Generic[R]):
    """A plan that was not started yet, with the rows it is expected to ask for."""

    plan: Plan[R]
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Report(Generic[R]):
    """How a job ended: for each plan, in order, its result or its failure."""

    outcomes: tuple[R | WhylightError, ...]
    device_seconds: float
    """Time for which the device worked for this job, its share of merged batches."""

    rows: int
    """Rows delivered to the job's plans."""


@dataclass(slots=True, eq=False)
class Run:
    """One plan at work."""

    plan: Plan[Any]
    expected: int
    """Rows it will ask for in all, as far as is known."""

    asked: int = 0
    done: int = 0
    single: bool = True
    """Whether it waits for one pass, not for a tuple of them."""

    answers: list[Any] = field(default_factory=list)
    """By slot; `None` while the pass is not done."""

    open: int = 0
    """Passes it still waits for."""

    ended: bool = False
    outcome: Any = None

    def wait_for(self, count: int, *, single: bool) -> None:
        """Start waiting for `count` passes."""
        self.single, self.open = single, count
        self.answers = [None] * count

    def answer(self, slot: int, value: Any) -> None:
        """Take in what one pass gave."""
        self.answers[slot] = value
        self.open -= 1

    @property
    def resumption(self) -> Any:
        """What the plan is resumed with."""
        return self.answers[0] if self.single else tuple(self.answers)

    def close(self) -> None:
        """Close the plan so that its cleanup runs now; one that resists is abandoned."""
        with suppress(Exception):  # it has ended badly already; this adds nothing
            self.plan.close()

    def end(self, outcome: Any) -> None:
        """Take in the result or the failure."""
        self.ended, self.outcome = True, outcome
        self.answers = []

    @property
    def left(self) -> int:
        """Rows that it still needs, as far as is known."""
        return self.expected - self.done

    @property
    def progress(self) -> float:
        """Rows of this plan that need no more work."""
        return self.expected if self.ended else min(self.done, self.expected)


@dataclass(slots=True, eq=False)
class Rider:
    """A pass of one plan, riding on an item."""

    run: Run
    slot: int
    ask: Forward | Gradient
    chunks: list[Step] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Item:
    """Rows to be served for one job, and who of its plans waits for them."""

    work: Work
    riders: list[Rider]
    group: Hashable
    next: int = 0
    """First row that was not served yet."""

    handed: int = 0
    """Rows whose results were handed on; fewer than were served while a batch is on its way."""

    asked: float = field(default_factory=time.perf_counter)
    """Moment of `time.perf_counter` at which it was asked for."""

    @property
    def left(self) -> int:
        """Rows that were not served yet."""
        return self.work.rows.count - self.next

    @property
    def turn(self) -> tuple[int, float]:
        """What the plan with least to do still needs, and the share of these rows served."""
        least = min(rider.run.left for rider in self.riders)
        return least, self.next / self.work.rows.count


@dataclass(slots=True, eq=False)
class Loan:
    """An exclusive work that waits for its turn."""

    run: Run
    slot: int
    exclusive: Exclusive

    @property
    def turn(self) -> tuple[int, float]:
        """What its plan still needs; rows that this plan asks for beside it come first."""
        return self.run.left, 1.0


@dataclass(slots=True, eq=False)
class Job:
    """One job: its plans share rows, its turns are counted together."""

    id: str
    runtime: Runtime
    runs: tuple[Run, ...]
    weight: float
    deadline: float | None
    """Moment of the scheduler's clock."""

    on_progress: Callable[[float], None] | None
    future: "Future[Report[Any]]"
    items: list[Item | Loan] = field(default_factory=list)
    """Oldest first."""

    turns: float = 0.0
    """Virtual time: device seconds by weight, from the minimum at entry."""

    device_seconds: float = 0.0
    rows: int = 0
    shown: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether every plan has ended."""
        return all(run.ended for run in self.runs)

    @property
    def queue(self) -> "list[Item | Loan]":
        """What was not served yet, in the order in which it is.

        The plan with the least left to do goes first, so that no cheap method waits for a long
        one: should time run out, it is the longest that are cut short. What a plan asks for at
        once takes turns, so that of several views each is begun before one is done.
        """
        waiting = self._unserved
        return sorted(waiting, key=_turn) if len(waiting) > 1 else waiting

    @property
    def waiting(self) -> "Item | Loan | None":
        """What is served next."""
        waiting = self._unserved
        return min(waiting, key=_turn) if len(waiting) > 1 else next(iter(waiting), None)

    @property
    def _unserved(self) -> "list[Item | Loan]":
        return [each for each in self.items if isinstance(each, Loan) or each.left]

    def charge(self, seconds: float) -> None:
        """Count device time against the job's turns."""
        self.device_seconds += seconds
        self.turns += seconds / self.weight

    def item_of(self, ask: Forward | Gradient) -> Item | None:
        """Return an item of the same rows and rule that nobody has started or folds."""
        if ask.rows.token is None or ask.fold is not None:
            return None
        wanted = (rule_of(ask), ask.rows.token)
        for item in self.items:
            if (
                isinstance(item, Item)
                and item.next == 0
                and (item.work.rule, item.work.rows.token) == wanted
                and all(rider.ask.fold is None for rider in item.riders)
            ):
                return item
        return None

    def report(self) -> Report[Any]:
        """Return how the job ended."""
        outcomes = tuple(run.outcome for run in self.runs)
        return Report(outcomes, self.device_seconds, self.rows)

    def drop(self, run: Run) -> None:
        """Forget what an ended plan still waited for."""
        kept: list[Item | Loan] = []
        for item in self.items:
            if isinstance(item, Item):
                item.riders = [rider for rider in item.riders if rider.run is not run]
                if item.riders:
                    kept.append(item)
            elif item.run is not run:
                kept.append(item)
        self.items = kept

    def tell_progress(self) -> None:
        """Show the share of rows done; it never falls, and is 1 only at the end."""
        if self.on_progress is None:
            return
        expected = sum(run.expected for run in self.runs)
        share = sum(run.progress for run in self.runs) / max(expected, 1)
        share = 1.0 if self.ended else min(share, 0.999)
        if share > self.shown:
            self.shown = share
            self.on_progress(share)


def _turn(waiting: Item | Loan) -> tuple[int, float]:
    return waiting.turn


def runs_of(plans: Sequence[Planned[Any]]) -> tuple[Run, ...]:
    """Return runs for plans that were not started yet."""
    return tuple(Run(each.plan, max(each.rows, 1)) for each in plans)
