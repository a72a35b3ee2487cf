"""The surveyor: measures at low priority what was asked for in bfloat16.

Like the certifier's, its thread sleeps and waits for the device's owner thread,
and may be given up at any moment.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.domain.precision import PrecisionRecord
from service.errors import UnservablePass, WhylightError
from service.precisions import PrecisionRecords, Wishes
from service.telemetry import Log
from workers.certify.cases import NotCertifiable, read_cases
from workers.certify.precision import measured
from workers.certify.turns import Turns, Unwanted
from workers.methods.base import Method
from workers.model import Model
from workers.patience import Watch
from workers.replicas import Dismissed

EVERY: Final = 3.0
"""Seconds between two looks for wishes."""


@dataclass(frozen=True, slots=True, eq=False)
class Surveyor:
    """Measures methods in bfloat16 until it is stopped.

    Parameters
    ----------
    models
        Tells which models are in memory: one that leaves is measured another time.
    unpacked
        Folder in which packages lie unpacked, by digest.
    wishes
        What requests asked for.
    store
        Records of the whole installation: what is there is not measured again.
    stopped
        Ends everything at once.
    """

    models: Callable[[], tuple[Model, ...]]
    unpacked: Path
    wishes: Wishes
    store: PrecisionRecords
    turns: Turns
    stopped: threading.Event
    log: Log

    def run(self) -> None:
        """Look for wishes, and measure what they are for, until stopped."""
        watch = Watch(self.log, "store")
        while not self.stopped.wait(EVERY):
            for model in self.models():
                try:
                    self.serve(model)
                    watch.up()
                except (Unwanted, Dismissed):
                    continue
                except WhylightError as error:  # the store is silent; they wait on
                    watch.down(error)

    def serve(self, model: Model) -> None:
        """Measure everything that is wished for on one model.

        Raises
        ------
        Unwanted
            The worker drains, or the model is gone.
        StoreUnavailable
            The store does not answer.
        """
        self.turns.wanted = lambda: any(each is model for each in self.models())
        self._take_in(model)
        while (method := model.precisions.next()) is not None:
            self.turns.check()
            if model.precisions.known(method) is not None:
                continue
            began = time.monotonic()
            try:
                record = self._record(method, model)
            except (Unwanted, Dismissed):
                raise
            except Exception as error:  # noqa: BLE001 - a method must not end the measuring
                self.log.bug(error, method=method.name)
                model.precisions.keep(_broken(method, model))
                continue
            model.precisions.keep(self.store.enter(record))
            self.log.info(
                "precision_measured",
                model=model.manifest.ref,
                method=record.method,
                status=record.outcome,
                seconds=round(time.monotonic() - began, 3),
            )

    def _take_in(self, model: Model) -> None:
        """Note what is wished for; what this worker cannot serve anyway is passed over."""
        for choice in self.wishes.of(model.ref.package):
            try:
                model.precisions.wish(model.settled(choice))
            except WhylightError:
                continue

    def _record(self, method: Method, model: Model) -> PrecisionRecord:
        """Measure one method, or say why it cannot be measured."""
        calibration = model.manifest.calibration
        assert calibration is not None  # noqa: S101 - without one nothing can be wished for
        path = self.unpacked / model.ref.package / calibration.cases
        try:
            cases = read_cases(path, model.manifest, model.runtime.shape)
            return measured(method, model, cases, self.turns)
        except NotCertifiable as error:
            reason = error.reason
        except UnservablePass:
            reason = "runtime_cannot"
        return model.precisions.record(method, outcome="not_offered", reason=reason)


def _broken(method: Method, model: Model) -> PrecisionRecord:
    """Return what is told of a method that broke, as long as this worker lives."""
    return model.precisions.record(method, outcome="not_offered", reason="measuring_failed")
