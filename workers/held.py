"""A job in hand: what its own line and the worker's keeper both look at.

The line writes where the job stands; the keeper reads it, tells the queue and
keeps the lease. What comes back (cancelled, lost, drained) is written here and
met by the line at its next step, or at once by what it waits for.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from service.domain.job import Stage
from service.domain.parity import ParityReport
from service.errors.jobs import Cancelled, Draining
from service.queue.base import Lease

LIMITS: Final = {
    Stage.FETCH: 60.0,
    Stage.DECODE: 90.0,
    Stage.PREPARE: 90.0,
    Stage.ATTRIBUTE: 120.0,
    Stage.JUDGE: 60.0,
    Stage.RENDER: 120.0,
    Stage.DELIVER: 60.0,
    Stage.PROBE: math.inf,  # a load has limits of its own, and nothing to tell on its way
}
"""Seconds without progress after which a stage is taken for dead, beside what a job is allowed."""


class LeaseLost(Exception):
    """Another worker may hold the job: nothing of ours may be published."""


class Held:
    """One leased job on this worker; every method may be called by any thread."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.timings: dict[str, float] = {}
        """Seconds by stage."""

        self.parity: ParityReport | None = None
        """Set once the model has answered, so that a job that fails then tells it too."""

        self._lock = threading.Lock()
        self._stage = Stage.FETCH
        self._progress = 0
        self._told: tuple[Stage, int] | None = None
        self._touched = time.monotonic()
        self._leeway = 0.0
        self._reason: Exception | None = None
        self._wake: list[Callable[[], None]] = []

    @property
    def token(self) -> str:
        """The lease's token."""
        return self.lease.token

    # ------------------------------------------------------------ the line's side

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Stand in `stage` and time it; entered only while the job may go on."""
        self.check()
        with self._lock:
            self._stage, self._progress, self._touched = stage, 0, time.monotonic()
        start = time.monotonic()
        try:
            yield
        finally:
            self.timings[stage.value] = time.monotonic() - start

    def allow(self, seconds: float) -> None:
        """Let each stage from now on be silent for so much longer: what is explained is large."""
        with self._lock:
            self._leeway += seconds

    def report(self, share: float) -> None:
        """Note progress within the stage, as a share of 1; it never falls."""
        with self._lock:
            self._progress = max(self._progress, min(1000, int(share * 1000)))
            self._touched = time.monotonic()

    def advance(self, share: float) -> None:
        """Note progress, and go on only while the job may; raises as `check` does."""
        self.report(share)
        self.check()

    def check(self) -> None:
        """Raise what stopped the job, if anything did.

        Raises
        ------
        Cancelled, Draining, LeaseLost
            See :meth:`cancel`, :meth:`drain` and :meth:`lose`.
        """
        with self._lock:
            if self._reason is not None:
                raise self._reason

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Have `wake` called when the job is stopped, by whichever thread stops it."""
        with self._lock:
            self._wake.append(wake)
            stopped = self._reason is not None
        try:
            if stopped:
                wake()
            yield
        finally:
            with self._lock:
                self._wake.remove(wake)

    # ---------------------------------------------------------- the keeper's side

    def cancel(self) -> None:
        """Stop the job because its caller asked."""
        self._stop(Cancelled("The job was cancelled on request."))

    def drain(self) -> None:
        """Stop the job because the worker is going down; it goes back to the queue."""
        self._stop(Draining("The worker is shutting down."))

    def lose(self) -> None:
        """Stop the job because its lease is no longer ours."""
        self._stop(LeaseLost())

    def _stop(self, reason: Exception) -> None:
        """Keep the first reason, except that a lost lease outranks all others."""
        with self._lock:
            if self._reason is None or isinstance(reason, LeaseLost):
                self._reason = reason
            wake = tuple(self._wake)
        for each in wake:
            each()

    @property
    def stalled(self) -> bool:
        """Whether the stage made no progress within its limit."""
        with self._lock:
            silent = time.monotonic() - self._touched
            return silent > LIMITS[self._stage] + self._leeway

    def news(self) -> tuple[Stage, int] | None:
        """Return stage and progress if they changed since they were last told."""
        with self._lock:
            now = (self._stage, self._progress)
            return None if now == self._told else now

    def told(self, news: tuple[Stage, int]) -> None:
        """Note that the queue was told."""
        with self._lock:
            self._told = news
