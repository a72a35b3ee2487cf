"""Loads, noted in the fleet: a package that ends worker after worker is given up.

A library that crashes, or the kernel when memory is full, ends the whole process.
Without a note of what it was at, the next one would begin with the same package.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors.base import WhylightError
from service.errors.models import ModelCrashed
from service.fleet.base import LOST_LOADS, Fleet, Leave
from service.telemetry import Log
from workers.herald import EVERY, SILENT_FOR
from workers.patience import Watch, patiently


class Loads:
    """Notes of one worker's loads."""

    def __init__(self, fleet: Fleet, worker: str, log: Log) -> None:
        self._fleet = fleet
        self._worker = worker
        self._watch = Watch(log, "queue")

    @contextmanager
    def noted(self, package: str) -> Iterator[bool]:
        """Note that a package is loaded for as long as it is; tell whether it may be now.

        Raises
        ------
        ModelCrashed
            Too many workers ended while they loaded it.
        """
        leave = self._begin(package)
        if leave is Leave.GIVEN_UP:
            raise ModelCrashed(
                "Worker processes ended while they loaded this model, as by a crash in a library or"
                " for want of memory, so it is not tried again. Load the file on a machine of your"
                " own, and register a mended version; or register this one once more, and it is"
                " tried again.",
                lost_workers=LOST_LOADS,
            )
        if leave is Leave.WAIT:
            yield False
            return
        over = threading.Event()
        holding = threading.Thread(target=self._hold, args=(over,), name="load", daemon=True)
        holding.start()
        try:
            yield True
        finally:
            over.set()
            holding.join()
            # a note that stays would count as a crash
            patiently(lambda: self._fleet.end_load(self._worker), threading.Event())

    def _begin(self, package: str) -> Leave:
        """Ask for leave; without an answer there is none yet."""
        try:
            leave = self._fleet.begin_load(package, self._worker, seconds=SILENT_FOR)
        except WhylightError as error:
            self._watch.down(error)
            return Leave.WAIT
        self._watch.up()
        return leave

    def _hold(self, over: threading.Event) -> None:
        """Tell now and then that the load goes on, however slowly."""
        while not over.wait(EVERY):
            try:
                self._fleet.hold_load(self._worker, seconds=SILENT_FOR)
                self._watch.up()
            except WhylightError as error:
                self._watch.down(error)
