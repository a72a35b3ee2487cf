"""The way to the device at low priority: between the batches of jobs, and given up at once."""

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from service.errors.base import WhylightError
from service.errors.jobs import Draining
from service.errors.models import ModelSilent
from workers.running import Planned
from workers.runtimes.base import Runtime
from workers.scheduler import Scheduler

R = TypeVar("R")

WEIGHT: Final = 0.1
"""Share of the device beside a job of normal priority, which has 2."""

LOOK: Final = 0.2
"""Seconds between two looks at the jobs in hand, and whether what is measured is still wanted."""

QUIET: Final = 3.0
"""Seconds without a job in hand after which measuring goes on."""

PATIENCE: Final = 30.0
"""Seconds after which it goes on all the same, with its small share."""


class Unwanted(Exception):
    """The worker drains, or the model is gone: nothing more is measured."""


class Turns:
    """Turns on the device for measuring; used by one thread.

    Parameters
    ----------
    stopped
        Set when the worker drains.
    busy
        Tells whether a job is in hand.
    name
        What the scheduler's jobs are named after.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        stopped: threading.Event,
        busy: Callable[[], bool],
        name: str = "certify",
    ) -> None:
        self._scheduler = scheduler
        self._stopped = stopped
        self._busy = busy
        self._last_busy = -math.inf
        self._names = (f"{name}-{number}" for number in itertools.count())
        self.wanted: Callable[[], bool] = lambda: True
        """Whether the model that is measured is still on the shelf."""

    def check(self) -> None:
        """Raise `Unwanted` unless measuring may go on."""
        if self._stopped.is_set() or not self.wanted():
            raise Unwanted

    def owned(self, work: Callable[[], R]) -> R:
        """Have the device's owner thread do something short between two batches."""
        self.check()
        with _until_drained():
            return self._scheduler.call(work).result()

    def serve(self, runtime: Runtime, plans: Sequence[Planned[R]]) -> tuple[R | WhylightError, ...]:
        """Return the outcomes of plans, served while jobs leave the device to them.

        Raises
        ------
        Unwanted
            The worker drains, or the model or its server is gone.
        """
        self._wait()
        name = next(self._names)
        with _until_drained():
            ticket = self._scheduler.submit(name, runtime, plans, weight=WEIGHT)
        while True:
            try:
                outcomes: tuple[Any, ...] = ticket.result(LOOK).outcomes
            except TimeoutError:
                self._look()
                if self._stopped.is_set() or not self.wanted():
                    self._scheduler.cancel(name)
                continue
            self.check()
            if any(isinstance(each, ModelSilent) for each in outcomes):
                raise Unwanted  # now: it is measured once the model is loaded again
            return outcomes

    def _wait(self) -> None:
        """Let jobs in hand end first, and those that follow them, for a while."""
        self._look()
        patience = time.monotonic() + PATIENCE
        while time.monotonic() < min(patience, self._last_busy + QUIET):
            self._stopped.wait(LOOK)
            self.check()
            self._look()

    def _look(self) -> None:
        """Note whether a job is in hand at this moment."""
        if self._busy():
            self._last_busy = time.monotonic()


@contextmanager
def _until_drained() -> Iterator[None]:
    """Tell a scheduler that takes nothing more as `Unwanted`."""
    try:
        yield
    except Draining as error:
        raise Unwanted from error
