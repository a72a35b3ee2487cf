"""The certifier: measures at low priority what the models on the shelf have waiting."""

import time
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from service.certificates import MethodRecords
from service.domain.certificate import MethodRecord
from workers.certify.cases import NotCertifiable
from workers.certify.ground import Ground, prepare
from workers.certify.measure import Measurement
from workers.certify.rounds import GIVEN_UP, Rounds
from workers.model import Model


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Certifier(Rounds):
    """Measures methods on models until it is stopped.

    Parameters
    ----------
    store
        Records of the whole installation: what is there is not measured again.
        While it is silent, what is measured is kept by the model alone.
    """

    every: ClassVar = 0.5

    store: MethodRecords

    @override
    def measure(self, model: Model) -> None:
        """Measure every method that waits to be certified."""
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
            except GIVEN_UP:
                raise
            except Exception as error:  # noqa: BLE001 - a method must not end the measuring
                reason = self.failed(error, method, model)
                model.records.keep(model.records.uncertifiable(method, reason))  # and nowhere else
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
