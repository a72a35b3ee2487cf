"""What was measured of methods in bfloat16 on one model, and what waits to be measured."""

import threading
from collections.abc import Callable
from typing import Final, Literal

from service.domain.canonical import digest_of
from service.domain.precision import PROTOCOL, PrecisionRecord
from service.errors.requests import PrecisionNotOffered
from workers.methods.base import Method
from workers.passes import Ability
from workers.records import Subject

OF_PIXELS: Final = frozenset(
    {
        Ability.INPUT_GRADIENT,
        Ability.RECTIFIER_RULES,
        Ability.RESCALE_RULE,
        Ability.PATH_GRADIENT,
    }
)
"""Needs of methods whose maps are derivatives with respect to the input."""

GATE: Final = 0.999
GATE_OF_PIXELS: Final = 0.99
"""Single pixels' derivatives are noisy in themselves: their maps are held to less."""

Hindrance = Literal["no_calibration_set", "runtime_cannot"]


def gate_of(method: type[Method] | Method) -> float:
    """Return the correlation with float64 that every map of a method must reach."""
    return GATE_OF_PIXELS if method.needs & OF_PIXELS else GATE


class Precisions:
    """A model's records by what they depend on; any thread may ask.

    Parameters
    ----------
    subject
        The model, as far as what is measured on it depends on it.
    device
        Kind of device, such as ``cpu``.
    hindrance
        Why nothing can be measured on the model, if so.
    find
        Looks for a record of the whole installation, by its digest.
    """

    def __init__(
        self,
        subject: Subject,
        device: str,
        hindrance: Hindrance | None = None,
        find: Callable[[str], PrecisionRecord | None] = lambda _: None,
    ) -> None:
        self._subject = subject
        self._device = device
        self.hindrance = hindrance
        self._find = find
        self._lock = threading.Lock()
        self._waiting: dict[str, Method] = {}
        self._kept: dict[str, PrecisionRecord] = {}
        self._changes = 0

    @property
    def changes(self) -> int:
        """How often something changed: equal numbers, equal records."""
        with self._lock:
            return self._changes

    def identify(self, method: Method) -> str:
        """Return the digest of all that the record of a method depends on."""
        subject = self._subject.identify(method)
        return digest_of({"subject": subject, "device": self._device, "protocol": PROTOCOL})

    def fits(self, record: PrecisionRecord, method: Method) -> bool:
        """Tell whether a record is of this method on this model and kind of device."""
        return self.hindrance is None and record.id == self.identify(method)

    def wish(self, method: Method) -> None:
        """Have a method measured, its parameters settled, unless it was."""
        if self.hindrance is not None:
            return
        id_ = self.identify(method)
        with self._lock:
            if id_ not in self._kept and id_ not in self._waiting:
                self._waiting[id_] = method
                self._changes += 1

    def next(self) -> Method | None:
        """Return what has waited longest; it waits until its record is kept."""
        with self._lock:
            return next(iter(self._waiting.values()), None)

    def known(self, method: Method) -> PrecisionRecord | None:
        """Return the record of a method, be it measured here or elsewhere."""
        id_ = self.identify(method)
        with self._lock:
            if id_ in self._kept:
                return self._kept[id_]
        found = self._find(id_)
        if found is not None:
            self.keep(found)
        return found

    def demand(self, method: Method) -> PrecisionRecord:
        """Return the record of a method whose maps may be computed in bfloat16.

        Raises
        ------
        PrecisionNotOffered
            Nothing was measured of it, or its maps are too far from those in float64.
        """
        record = None if self.hindrance is not None else self.known(method)
        if record is None or record.outcome != "offered":
            raise PrecisionNotOffered(
                "This worker does not offer the method in bfloat16 on this model.",
                method=method.name,
                reason=self.hindrance or (record and record.reason) or "not_measured",
            )
        return record

    def keep(self, record: PrecisionRecord) -> None:
        """Take in what was measured."""
        with self._lock:
            self._waiting.pop(record.id, None)
            self._kept[record.id] = record
            self._changes += 1

    def record(self, method: Method, **measured: object) -> PrecisionRecord:
        """Return a record of a method with what was `measured`."""
        return PrecisionRecord.model_validate(
            {
                "id": self.identify(method),
                "method": method.name,
                "parameters": method.model_dump(mode="json"),
                "device": self._device,
                "gate": gate_of(method),
                **measured,
            }
        )

    def all(self) -> tuple[PrecisionRecord, ...]:
        """Return every record, and one that is pending of every method that waits."""
        with self._lock:
            waiting = tuple(self._waiting.values())
            return (
                *self._kept.values(),
                *(self.record(method, outcome="pending") for method in waiting),
            )
