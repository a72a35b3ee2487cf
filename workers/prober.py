"""The prober: leads the probe jobs that registering a package queues.

It works in the shelf's own thread, between two looks into the store and, at the start, between
two packages, so a worker loads one package at a time; it takes none of the lines that
explanations need. The worker that leases a probe takes the package in at once and tells whether
it serves; the others of the pool follow the store, for each has to load it itself.

A package that ends the process that loads it is given up by its loads (:mod:`workers.loads`):
after the second, the probe's next attempt loads nothing and fails as the package's entry says,
``model_crashed``. Only a probe whose workers ended otherwise becomes a dead letter.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from service.domain.job import Stage, State
from service.errors.base import WhylightError
from service.errors.jobs import Cancelled, Draining
from service.queue.base import JobQueue, Lease, Outcome
from service.telemetry import Log
from workers.held import Held, LeaseLost
from workers.keeper import Hand
from workers.loop import LEASE_WAIT
from workers.patience import Watch, patiently
from workers.shelf import Shelf

PAUSE: Final = 1.0
"""Seconds before a probe that has to wait goes back, so that it does not spin."""


class Prober:
    """Leads one probe after the other.

    Parameters
    ----------
    name, pool
        The worker's, in the queue.
    hand
        The jobs whose leases the worker's keeper holds.
    publish
        Tells the fleet what the shelf has, before it returns.
    draining, ended
        Set when the worker leases no more, and when it has ended.
    """

    def __init__(
        self,
        *,
        name: str,
        pool: str,
        queue: JobQueue,
        shelf: Shelf,
        hand: Hand,
        publish: Callable[[], None],
        draining: threading.Event,
        ended: threading.Event,
        log: Log,
    ) -> None:
        self._name = name
        self._pool = pool
        self._queue = queue
        self._shelf = shelf
        self._hand = hand
        self._publish = publish
        self._draining = draining
        self._ended = ended
        self._log = log
        self._watch = Watch(log, "queue")

    def wait(self, seconds: float) -> None:
        """Lead the probes that come, until none has for so long or one has to wait."""
        until = time.monotonic() + seconds
        while not self._ended.is_set() and (left := until - time.monotonic()) > 0:
            if (lease := self._ask(min(left, LEASE_WAIT))) is None:
                continue
            if not self._lead(lease):
                return
            until = time.monotonic() + seconds

    def lead_waiting(self) -> None:
        """Lead the probes that wait now, until one has to wait on."""
        while not self._ended.is_set() and (lease := self._ask(0.0)) is not None:
            if not self._lead(lease):
                return

    def _lead(self, lease: Lease) -> bool:
        """Lead a probe whatever happens; whether it does not have to wait."""
        try:
            return self._led(Held(lease))
        except WhylightError as error:  # Redis fell silent: the lease ends by itself
            self._log.warning("lease_lost", job=lease.job.id, reason=error.code)
        except Exception as error:  # noqa: BLE001 - the shelf must outlive its bugs
            self._log.bug(error, job=lease.job.id)
        return True

    def _ask(self, seconds: float) -> Lease | None:
        if self._draining.is_set():
            self._ended.wait(seconds)
            return None
        try:
            lease = self._queue.lease(self._name, self._pool, (), probes=True, wait=seconds)
        except WhylightError as error:
            if not self._draining.is_set():  # else it is this process that hung up
                self._watch.down(error)
            self._ended.wait(seconds)
            return None
        self._watch.up()
        return lease

    def _led(self, held: Held) -> bool:
        """Lead a probe to its end; whether it got there.

        One that is stopped goes back at once, although what loads its package goes on.
        """
        job = held.lease.job
        self._log.info("leased", job=job.id, attempt=job.attempt, model=job.model)
        self._hand.take(held)
        try:
            if self._draining.is_set():
                held.drain()
            with held.waking(partial(self._give_back, held)):
                with held.stage(Stage.PROBE):
                    outcome = self._outcome(job.package)
                held.check()
                if outcome is not None:
                    self._publish()  # who sees that it succeeded finds the model served
                    self._settle(held, outcome)
                    return True
                self._ended.wait(PAUSE)
                self._give_back(held)
        except (Cancelled, Draining, LeaseLost):
            pass
        finally:
            self._hand.drop(held)
        return False

    def _outcome(self, package: str) -> Outcome | None:
        """Return how a package's probe ends; `None` if it has to wait."""
        try:
            entry = self._shelf.probe(package)
        except WhylightError as error:
            return None if error.retryable else Outcome(State.FAILED, failure=error.failure())
        if entry is None:
            return None
        if entry.state == "ready":
            return Outcome(State.SUCCEEDED)
        return Outcome(State.FAILED, failure=entry.failure)

    def _settle(self, held: Held, outcome: Outcome) -> None:
        job = held.lease.job
        if patiently(lambda: self._queue.settle(held.lease, outcome), self._ended):
            code = outcome.failure.code if outcome.failure else None
            self._log.info("settled", job=job.id, state=outcome.state.value, code=code)
        else:
            self._log.warning("lease_lost", job=job.id)

    def _give_back(self, held: Held) -> None:
        """Give a probe back, its attempt not counted; one that was cancelled ends with that."""
        self._hand.drop(held)
        with suppress(WhylightError):  # the lease ends by itself then
            if self._queue.release(held.lease):
                self._log.info("released", job=held.lease.job.id)
