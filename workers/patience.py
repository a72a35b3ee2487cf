"""Waiting for Redis or the store to come back, without giving up a job for it."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from service.errors.base import WhylightError
from service.telemetry import Log

T = TypeVar("T")

FIRST: Final = 0.1
LONGEST: Final = 2.0


class Watch:
    """Tells once when a server falls silent and once when it is back.

    Each thread has its own.
    """

    def __init__(self, log: Log, dependency: str) -> None:
        self._log = log
        self._dependency = dependency
        self._down = False

    def down(self, error: WhylightError) -> None:
        """Note that the server did not answer."""
        if not self._down:
            self._log.warning("dependency_down", dependency=self._dependency, code=error.code)
        self._down = True

    def up(self) -> None:
        """Note that the server answered."""
        if self._down:
            self._log.info("dependency_back", dependency=self._dependency)
        self._down = False


def pauses() -> Iterator[float]:
    """Yield pauses in seconds, each twice the last, up to `LONGEST`."""
    pause = FIRST
    while True:
        yield pause
        pause = min(LONGEST, pause * 2)


def patiently(
    call: Callable[[], T],
    given_up: threading.Event,
    *,
    seconds: float = math.inf,
    check: Callable[[], None] | None = None,
) -> T:
    """Call until the server behind it answers.

    Parameters
    ----------
    call
        What to do; doing it twice must be harmless.
    given_up
        Ends the waiting; the last error is then raised.
    seconds
        Longest time to wait.
    check
        Raises what else ends the waiting; asked before each further try.

    Raises
    ------
    WhylightError
        What `call` raised, when it was not of kind ``wait`` or when the
        waiting was given up.
    """
    until = time.monotonic() + seconds
    for pause in pauses():
        try:
            return call()
        except WhylightError as error:
            late = time.monotonic() + pause > until
            if not error.retryable or late or given_up.wait(pause):
                raise
        if check is not None:
            check()
    raise AssertionError  # pragma: no cover - the pauses never end
