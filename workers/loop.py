"""The loop: lease a job when a line is free, lead it, drain when told to.

Its threads only sleep and talk to Redis and the store; the models run on the
owner thread of the device, and the pixels in processes of their own.
"""

import threading
from collections.abc import Callable
from typing import Final

from service.domain.job import JobKind
from service.errors.base import WhylightError
from service.queue.base import JobQueue, Lease
from service.settings import Settings
from service.telemetry import Log
from workers.held import Held
from workers.keeper import Hand, Keeper
from workers.patience import Watch, patiently, pauses

LEASE_WAIT: Final = 1.0
"""Seconds that one question for a job may block; a drain waits no longer than this."""

MODEL_WAIT: Final = 0.2
"""Seconds between two looks for a model that can be served."""

ALONE_FROM: Final = 3
"""Attempt from which a job runs alone: it may be what killed two workers."""

LAST_WORDS: Final = 5.0
"""Seconds for lines to give their jobs back once the grace is over."""


class Loop:
    """One worker's jobs, from lease to settlement.

    Parameters
    ----------
    name
        The worker's name in the queue.
    queue
        Where jobs come from.
    packages
        Tells which model packages can be served at this moment.
    at_hand
        Tells which of them need not be loaded first.
    lead
        Leads one job; must settle or release it, and never raise.
    """

    def __init__(
        self,
        *,
        name: str,
        queue: JobQueue,
        packages: Callable[[], tuple[str, ...]],
        at_hand: Callable[[], tuple[str, ...]] = tuple,
        lead: Callable[[Held], None],
        settings: Settings,
        log: Log,
    ) -> None:
        self._name = name
        self._queue = queue
        self._packages = packages
        self._at_hand = at_hand
        self._lead = lead
        self._settings = settings
        self._log = log
        self._watch = Watch(log, "queue")
        self.hand = Hand()
        self.draining = threading.Event()
        self.ended = threading.Event()
        """Set once nothing is in hand any more, or the grace is over."""

        keeper = Keeper(queue, name, self.hand, settings.queue.renew, log)
        self._keeper = threading.Thread(target=keeper.run, args=(self.ended,), name="keeper")
        self._leaser = threading.Thread(target=self._run, name="leaser")

    def start(self) -> None:
        """Start leasing; returns at once."""
        self._keeper.start()
        self._leaser.start()

    def drain(self) -> None:
        """Lease no more; safe in a signal handler."""
        self.draining.set()

    def join(self) -> None:
        """Wait for the end of a drain."""
        self._leaser.join()
        self._keeper.join()

    # ------------------------------------------------------------- the leaser

    def _run(self) -> None:
        """Lease until drained, then let the jobs in hand end."""
        try:
            self._take_back()
            while not self.draining.is_set():
                self._lease_one()
            self._end_in_grace()
        finally:
            self.ended.set()

    def _take_back(self) -> None:
        """Return what a former life of this worker held, so that it runs at once."""
        try:
            count = patiently(lambda: self._queue.reclaim(self._name), self.draining)
        except WhylightError as error:
            self._watch.down(error)
            return
        if count:
            self._log.info("reclaimed", count=count)

    def _lease_one(self) -> None:
        """Lease one job if a line and a model are free for it."""
        if not self.hand.line_free(self._settings.worker.jobs, LEASE_WAIT):
            return
        packages = self._packages()
        if not packages:
            self.draining.wait(MODEL_WAIT)
            return
        lease = self._ask(packages)
        if lease is not None:
            self._begin(Held(lease))

    def _ask(self, packages: tuple[str, ...]) -> Lease | None:
        """Ask for a job; a silent Redis is asked again after a pause."""
        pool = self._settings.worker.pool
        for pause in pauses():
            try:
                lease = self._queue.lease(
                    self._name, pool, packages, at_hand=self._at_hand(), wait=LEASE_WAIT
                )
            except WhylightError as error:
                self._watch.down(error)
                if self.draining.wait(pause):
                    break
            else:
                self._watch.up()
                return lease
        return None

    def _begin(self, held: Held) -> None:
        """Start a line for the job; one that may be poison is led alone."""
        alone = held.lease.job.attempt >= ALONE_FROM
        self.hand.take(held)
        if alone:
            self._until_alone(held)
        if self.draining.is_set():
            held.drain()
        # a daemon: a line that hangs must not keep a drained process alive
        threading.Thread(target=self._follow, args=(held,), name="line", daemon=True).start()
        if alone:
            while not (self.hand.line_free(1, LEASE_WAIT) or self.draining.is_set()):
                pass

    def _until_alone(self, held: Held) -> None:
        """Wait until every other explanation has ended; it keeps its lease meanwhile."""
        while not (self.hand.line_free(2, LEASE_WAIT) or self.draining.is_set()):
            held.report(0.0)

    def _follow(self, held: Held) -> None:
        """Lead the job on a thread of its own, and let go of it at the end."""
        try:
            self._lead(held)
        except WhylightError as error:  # Redis or the store fell silent to the end
            self._log.warning("lease_lost", job=held.lease.job.id, reason=error.code)
        finally:
            self.hand.drop(held)

    # -------------------------------------------------------------- the drain

    def _end_in_grace(self) -> None:
        """Let jobs end within the grace; then have them given back. A probe goes back at once."""
        for held in self.hand.all():
            if held.lease.job.kind is JobKind.PROBE:  # what it finds is of no use here any more
                held.drain()
        if self.hand.fewer_than(1, self._settings.worker.grace.total_seconds()):
            return
        for held in self.hand.all():
            held.drain()
        self.hand.fewer_than(1, LAST_WORDS)
