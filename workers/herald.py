"""The herald: tells the fleet that this worker lives, and what it can do."""

import threading
from collections.abc import Callable
from typing import Final

from service.domain.catalog import Catalog
from service.errors.base import WhylightError
from service.fleet.base import Fleet, WorkerRecord
from service.telemetry import Log
from workers.patience import Watch

EVERY: Final = 2.0
SILENT_FOR: Final = 9.0
"""Seconds after which a worker that says nothing is taken for gone."""


class Herald:
    """Publishes record and catalog every few seconds, and at once when told.

    Parameters
    ----------
    record, catalog
        What is to be said at this moment.
    """

    def __init__(
        self,
        fleet: Fleet,
        record: Callable[[], WorkerRecord],
        catalog: Callable[[], Catalog],
        log: Log,
    ) -> None:
        self._fleet = fleet
        self._record = record
        self._catalog = catalog
        self._log = log
        self._watch = Watch(log, "queue")
        self._told = threading.Event()
        self._speaking = threading.Lock()

    def tell(self) -> None:
        """Publish now; any thread may ask."""
        self._told.set()

    def run(self, ended: threading.Event) -> None:
        """Publish until the worker has ended, then withdraw it."""
        while not ended.is_set():
            self._told.clear()
            self.publish()
            self._told.wait(EVERY)
        self.retire()

    def publish(self) -> None:
        """Publish before returning; any thread may call, and what is said last is newest."""
        with self._speaking:
            try:
                self._fleet.publish(self._record(), self._catalog(), seconds=SILENT_FOR)
                self._watch.up()
            except WhylightError as error:
                self._watch.down(error)
            except Exception as error:  # noqa: BLE001 - a worker that says nothing is taken for dead
                self._log.bug(error)

    def retire(self) -> None:
        """Withdraw the worker; twice is as good as once."""
        try:
            self._fleet.retire(self._record().id)
        except WhylightError as error:
            self._watch.down(error)
