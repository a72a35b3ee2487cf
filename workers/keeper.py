"""The keeper: the thread that holds the leases while others compute.

It sleeps and talks to Redis, nothing else. It tells the queue where the jobs
in hand stand, asks which are to be cancelled, prolongs their leases, and
returns expired leases of others to the queue. A job whose stage is dead is no
longer prolonged: it will run elsewhere.
"""

import random
import threading
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from service.domain.job import JobKind
from service.errors.base import WhylightError
from service.queue.base import JobQueue
from service.telemetry import LEASES_EXPIRED, Log
from workers.held import Held
from workers.patience import Watch

BEAT: Final = 0.2
"""Seconds between two looks: five progress reports a second at most."""

CANCEL_EVERY: Final = 0.4
"""Seconds between questions for cancelled jobs; they must stop within two."""


class Hand:
    """The jobs in hand, by token."""

    def __init__(self) -> None:
        self._jobs: dict[str, Held] = {}
        self._changed = threading.Condition()

    def take(self, held: Held) -> None:
        """Take a job in hand."""
        with self._changed:
            self._jobs[held.token] = held
            self._changed.notify_all()

    def drop(self, held: Held) -> None:
        """Let go of a job."""
        with self._changed:
            self._jobs.pop(held.token, None)
            self._changed.notify_all()

    def all(self) -> tuple[Held, ...]:
        """Return the jobs in hand."""
        with self._changed:
            return tuple(self._jobs.values())

    def line_free(self, lines: int, seconds: float) -> bool:
        """Wait until fewer than `lines` explanations are in hand; a probe takes none."""
        with self._changed:
            return self._changed.wait_for(lambda: self._explanations() < lines, seconds)

    def _explanations(self) -> int:
        kinds = [each.lease.job.kind for each in self._jobs.values()]
        return kinds.count(JobKind.EXPLANATION)

    def fewer_than(self, count: int, seconds: float) -> bool:
        """Wait until fewer than `count` jobs are in hand; whether it came so far."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._jobs) < count, seconds)


class Keeper:
    """Keeps the leases of the jobs in hand until `ended` is set."""

    def __init__(
        self,
        queue: JobQueue,
        worker: str,
        hand: Hand,
        renew: timedelta,
        log: Log,
    ) -> None:
        self._queue = queue
        self._worker = worker
        self._hand = hand
        self._renew_every = renew.total_seconds()
        self._log = log
        self._watch = Watch(log, "queue")
        self._sweep_every = self._renew_every / 2
        self._next_renewal = 0.0
        self._next_sweep = 0.0
        self._next_question = 0.0

    def run(self, ended: threading.Event) -> None:
        """Beat until the worker has ended; a silent Redis is waited for."""
        while not ended.wait(BEAT):
            try:
                self._beat(time.monotonic())
                self._watch.up()
            except WhylightError as error:
                self._watch.down(error)

    def _beat(self, now: float) -> None:
        """Renew before anything else: a late renewal costs the job."""
        jobs = self._hand.all()
        if now >= self._next_renewal:
            self._renew(jobs)
            self._next_renewal = now + self._renew_every
        if now >= self._next_sweep:
            LEASES_EXPIRED.inc(self._queue.sweep())
            # jitter keeps the sweeps of a fleet apart
            self._next_sweep = now + self._sweep_every * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        if jobs and now >= self._next_question:
            self._ask(jobs)
            self._next_question = now + CANCEL_EVERY
        self._tell(jobs)

    def _renew(self, jobs: Iterable[Held]) -> None:
        """Prolong every job that moves; one that does not, or is lost, is stopped."""
        moving = {held.token: held for held in jobs if not held.stalled}
        for held in jobs:
            if held.token not in moving:
                self._log.warning("lease_lost", job=held.lease.job.id, reason="stage_timeout")
                held.lose()
        kept = self._queue.renew(self._worker, tuple(moving)) if moving else frozenset()
        for token in moving.keys() - kept:
            moving[token].lose()

    def _ask(self, jobs: Iterable[Held]) -> None:
        """Stop the jobs whose callers want them no longer."""
        by_token = {held.token: held for held in jobs}
        for token in self._queue.cancelling(tuple(by_token)):
            by_token[token].cancel()

    def _tell(self, jobs: Iterable[Held]) -> None:
        """Tell the queue of stages and progress that changed."""
        for held in jobs:
            news = held.news()
            if news is None:
                continue
            if self._queue.report(held.lease, *news):
                held.told(news)
            else:
                held.lose()
