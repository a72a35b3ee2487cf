"""The certifier: measures at low priority what the models on the shelf have waiting.

Its thread sleeps, does small sums and waits for the device's owner thread. It
may be given up at any moment: what was not finished is measured another time.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.certificates import MethodRecords
from service.domain.certificate import MethodRecord
from service.errors import WhylightError
from service.telemetry import Log
from workers.certify.cases import NotCertifiable
from workers.certify.ground import Ground, prepare
from workers.certify.measure import Measurement
from workers.certify.turns import Turns, Unwanted
from workers.model import Model
from workers.patience import Watch
from workers.replicas import Dismissed

EVERY: Final = 0.5
"""Seconds between two looks for something to measure."""


@dataclass(frozen=True, slots=True, eq=False)
class Certifier:
    """Measures methods on models until it is stopped.

    Parameters
    ----------
    models
        Tells which models are in memory: one that leaves is measured another time.
    unpacked
        Folder in which packages lie unpacked, by digest.
    store
        Records of the whole installation: what is there is not measured again.
    stopped
        Ends everything at once.
    """

    models: Callable[[], tuple[Model, ...]]
    unpacked: Path
    store: MethodRecords
    turns: Turns
    stopped: threading.Event
    log: Log

    def run(self) -> None:
        """Look for what waits, and measure it, until stopped."""
        watch = Watch(self.log, "store")
        while not self.stopped.wait(EVERY):
            for model in self.models():
                try:
                    self.serve(model)
                    watch.up()
                except (Unwanted, Dismissed):
                    continue
                except WhylightError as error:  # the store is silent; it waits on
                    watch.down(error)

    def serve(self, model: Model) -> None:
        """Measure everything that waits for one model.

        Raises
        ------
        Unwanted
            The worker drains, or the model is gone.
        StoreUnavailable
            The store does not answer; what was measured meanwhile is kept here.
        """
        self.turns.wanted = lambda: any(each is model for each in self.models())
        ground: Ground | None = None
        while (method := model.records.next()) is not None:
            self.turns.check()
            known = self.store.find(model.records.subject.identify(method))
            if known is not None:
                model.records.keep(known)
                continue
            began = time.monotonic()
            try:
                ground = ground or prepare(model, self.unpacked / model.ref.package, self.turns)
                record = Measurement(method, ground, self.turns).record(model.records.subject)
            except NotCertifiable as error:
                record = model.records.uncertifiable(method, error.reason)
            except (Unwanted, Dismissed):
                raise
            except Exception as error:  # noqa: BLE001 - a method must not end the measuring
                self.log.bug(error, method=method.name)
                model.records.give_up(method)
                continue
            self._keep(model, record, time.monotonic() - began)

    def _keep(self, model: Model, record: MethodRecord, seconds: float) -> None:
        """Keep a record here before the store is asked: it may be silent."""
        model.records.keep(record)
        self.log.info(
            "certified",
            model=model.manifest.ref,
            method=record.method,
            status=record.certificate.outcome,
            seconds=round(seconds, 3),
        )
        counted = self.store.enter(record)
        if counted is not record:
            model.records.keep(counted)
