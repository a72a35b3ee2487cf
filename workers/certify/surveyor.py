"""The surveyor: measures at low priority what was asked for in bfloat16."""

import time
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from service.domain.precision import PrecisionRecord
from service.errors.base import WhylightError
from service.errors.models import UnservablePass
from service.precisions import PrecisionRecords, Wishes
from workers.certify.cases import NotCertifiable, read_cases
from workers.certify.precision import measured
from workers.certify.rounds import GIVEN_UP, Rounds
from workers.methods.base import Method
from workers.model import Model


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Surveyor(Rounds):
    """Measures methods in bfloat16 until it is stopped.

    Parameters
    ----------
    wishes
        What requests asked for.
    store
        Records of the whole installation: what is there is not measured again.
    """

    every: ClassVar = 3.0

    wishes: Wishes
    store: PrecisionRecords

    @override
    def measure(self, model: Model) -> None:
        """Measure everything that is wished for."""
        self._take_in(model)
        while (method := model.precisions.next()) is not None:
            self.turns.check()
            if model.precisions.known(method) is not None:
                continue
            began = time.monotonic()
            try:
                record = self._record(method, model)
            except GIVEN_UP:
                raise
            except Exception as error:  # noqa: BLE001 - a method must not end the measuring
                reason = self.failed(error, method, model)
                model.precisions.keep(
                    model.precisions.record(method, outcome="not_offered", reason=reason)
                )
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
