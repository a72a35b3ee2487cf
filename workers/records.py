"""What was measured of methods on one model, and what still waits to be measured."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, JsonValue

from service.domain.canonical import digest_of
from service.domain.certificate import Certificate, MethodRecord
from service.domain.explanation import RemoteModel
from service.domain.manifest import Manifest
from workers.measures.probe_bank import ProbeBank
from workers.methods.base import Method

PROTOCOL: Final = 1
"""Version of how methods are certified and calibrated: raised with any change of a number."""

MOST_WAITING: Final = 64
"""Methods and parameters of one model that may wait; more are not measured."""

MOST: Final = 512
"""Methods and parameters of one model that are remembered."""

NO_CLASS: Final = "target_is_no_class"
"""Why nothing was measured of a target that is no class: classes alone are exchanged."""

NO_LOGIT: Final = "score_is_no_logit"
"""Why nothing was measured of another number of a class: maps of logits alone are compared."""

Pending = Literal["pending"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, as far as what is measured on it depends on it."""

    manifest: Manifest
    dtype: str
    """Floating type that the model computes in, such as ``float32``."""

    remote: RemoteModel | None = None
    """What its server reported, of a model that runs elsewhere."""

    surrogate: bool = False
    """Whether a network stands in for the model, so that weights can be shuffled."""

    @property
    def weights(self) -> str:
        """Digest of what the runtime loads.

        Of a model that runs elsewhere, of what its server reported and of the
        answers that it must give to be served.
        """
        if self.manifest.weights is not None:
            return self.manifest.weights
        answers: list[JsonValue] = [[*test.expected] for test in self.manifest.selftests]
        return digest_of([_json(self.remote), answers])

    def identify(self, method: Method) -> str:
        """Return the digest of all that the method's record depends on.

        Parameters
        ----------
        method
            With every parameter settled.
        """
        manifest, calibration = self.manifest, self.manifest.calibration
        cases = [each for each in manifest.files if each.role == "calibration"]
        facts: dict[str, JsonValue] = {
            "protocol": [PROTOCOL, ProbeBank.version],
            "method": method.name,
            "method_version": method.version,
            "parameters": method.model_dump(mode="json"),
            "weights": self.weights,
            "runtime": manifest.runtime,
            "dtype": self.dtype,
            "architecture": _json(manifest.architecture),
            "steps": [_json(step) for step in manifest.image.steps],
            "task": manifest.task,
            "classes": [[each.key, each.threshold] for each in manifest.classes],
            "calibration": None
            if calibration is None
            else [calibration.synthetic, *(f.sha256 for f in cases if f.path == calibration.cases)],
        }
        views = {"views": [each.key for each in manifest.image.views]}
        surrogate = {"surrogate": True}
        return digest_of(
            facts | (views if manifest.image.views else {}) | (surrogate if self.surrogate else {})
        )


class Records:
    """A model's records by what they depend on; any thread may ask.

    Parameters
    ----------
    brought
        Records of the package, believed where their digests fit.
    """

    def __init__(self, subject: Subject, brought: Iterable[MethodRecord] = ()) -> None:
        self.subject = subject
        self._brought = {record.id: record for record in brought}
        self._lock = threading.Lock()
        self._asked: dict[str, Method] = {}
        self._waiting: dict[str, Method] = {}
        self._kept: dict[str, MethodRecord] = {}
        self._changes = 0

    @property
    def changes(self) -> int:
        """How often something changed: equal numbers, equal records."""
        with self._lock:
            return self._changes

    def record(self, method: Method) -> MethodRecord | Pending | None:
        """Return what was measured of a method; what was not is measured from now on.

        Parameters
        ----------
        method
            With every parameter settled, as it makes the maps.

        Returns
        -------
        MethodRecord, "pending" or None
            ``pending`` while it waits to be measured or is; `None` when it will
            not be measured, because too much waits already.
        """
        id_ = self.subject.identify(method)
        with self._lock:
            if id_ not in self._asked:
                self._ask(id_, method)
            return self._kept.get(id_, "pending" if id_ in self._waiting else None)

    def at_hand(self, method: Method) -> bool:
        """Tell whether a method's record needs no measuring."""
        return self._hindrance is not None or self.subject.identify(method) in self._brought

    @property
    def _hindrance(self) -> str | None:
        """Why no method can be measured on this model, if so."""
        manifest = self.subject.manifest
        if not manifest.task.startswith("classification"):
            return NO_CLASS
        return "no_calibration_set" if manifest.calibration is None else None

    def _ask(self, id_: str, method: Method) -> None:
        """Find the record of a method that was not asked for yet, or have it measured."""
        if len(self._asked) >= MOST:
            return
        brought, hindrance = self._brought.get(id_), self._hindrance
        if brought is not None and brought.method == method.name and hindrance != NO_CLASS:
            self._kept[id_] = brought
        elif hindrance is not None:
            self._kept[id_] = self.uncertifiable(method, hindrance)
        elif len(self._waiting) < MOST_WAITING:
            self._waiting[id_] = method
        else:
            return
        self._asked[id_] = method
        self._changes += 1

    def uncertifiable(self, method: Method, reason: str) -> MethodRecord:
        """Return the record that says why nothing could be measured."""
        return MethodRecord(
            id=self.subject.identify(method),
            method=method.name,
            parameters=method.model_dump(mode="json"),
            weights=self.subject.weights,
            runtime=self.subject.manifest.runtime,
            certificate=uncertified(reason),
        )

    def next(self) -> Method | None:
        """Return what has waited longest; it waits until a record of it is kept."""
        with self._lock:
            return next(iter(self._waiting.values()), None)

    def keep(self, record: MethodRecord) -> None:
        """Take in what was measured."""
        with self._lock:
            self._waiting.pop(record.id, None)
            self._kept[record.id] = record
            self._changes += 1

    def all(self) -> tuple[tuple[Method, MethodRecord | Pending], ...]:
        """Return what was asked for, in that order, with what is known of it."""
        with self._lock:
            return tuple(
                (method, self._kept.get(id_, "pending"))
                for id_, method in self._asked.items()
                if id_ in self._kept or id_ in self._waiting
            )


def uncertified(reason: str) -> Certificate:
    """Return the certificate of a method whose maps could not be compared."""
    return Certificate(
        outcome="not_certifiable",
        reason=reason,
        cases=0,
        seeds=0,
        synthetic=False,
        protocol=PROTOCOL,
    )


def _json(value: BaseModel | None) -> JsonValue:
    """Return a part of the manifest as JSON."""
    return None if value is None else value.model_dump(mode="json")
