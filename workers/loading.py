"""How a package becomes a model: built, tested, probed; or refused with the reason."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from service.certificates import read_records
from service.domain.catalog import ModelEntry
from service.domain.certificate import MethodRecord
from service.domain.manifest import Manifest
from service.errors import WhylightError
from workers import selftests
from workers.catalog import defaults, ready_model
from workers.document import model_ref
from workers.methods.base import ModelFacts
from workers.model import Model
from workers.passes import Ability, Forward, Plan
from workers.records import Hindrance, Records, Subject
from workers.regions import read_mask
from workers.rows import Clean
from workers.running import Planned
from workers.runtimes.base import RUNTIMES, Probe, Runtime
from workers.scheduler import Scheduler
from workers.slots import Slots

T = TypeVar("T")

Shape = tuple[int, ...]
LIMIT: Final = 600.0
"""Seconds for one step of loading on the device; large weights take a while."""


class Loader:
    """Makes models of unpacked packages; called by the shelf's thread alone.

    Weights are read in that thread and test inputs are decoded in the slots.
    The device's owner thread only moves and probes the model, between two
    batches, and the tests' passes take turns with those of jobs.
    """

    def __init__(
        self, scheduler: Scheduler, device: torch.device, slots: Slots, scratch: Path
    ) -> None:
        self._scheduler = scheduler
        self._device = device
        self._slots = slots
        self._scratch = scratch

    def load(self, manifest: Manifest, package: str, folder: Path) -> Model:
        """Build, test and probe a model.

        Parameters
        ----------
        package
            Digest of the package.
        folder
            Where its files lie, their digests checked.

        Raises
        ------
        ModelUnavailable
            The package does not hold what it promises.
        """
        region = read_mask(manifest, folder)
        inputs = [
            selftests.prepared(manifest, test, folder, self._slots, self._scratch)
            for test in manifest.selftests
        ]
        shape = inputs[0].shape
        opener = RUNTIMES[manifest.runtime]()
        opened = opener.open(manifest, folder, shape, self._device)
        runtime = self._owned(opened)
        try:
            for test, image in zip(manifest.selftests, inputs, strict=True):
                selftests.compare(test, self._logits(runtime, package, image))
            probe = self._owned(lambda: runtime.probed)
        except WhylightError:
            self._owned(lambda: self._scheduler.forget(runtime))
            raise
        layers = tuple(layer.name for layer in probe.layers)
        facts = ModelFacts(
            layers=layers,
            linear_heads=tuple(layer for layer in layers if layer in probe.linear_heads),
            baseline=manifest.explain.baseline,
        )
        entry = ready_model(manifest, package, probe, shape, facts)
        records = _records(manifest, folder, runtime, entry, facts)
        return Model(manifest, model_ref(manifest, package), facts, runtime, entry, records, region)

    def unload(self, model: Model) -> None:
        """Forget a model; jobs that still use it keep it until they end."""
        self._owned(lambda: self._scheduler.forget(model.runtime))

    def _owned(self, work: Callable[[], T]) -> T:
        """Have the owner thread do something between two batches."""
        return self._scheduler.call(work).result(LIMIT)

    def _logits(
        self, runtime: Runtime, package: str, image: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return the model's answer on one prepared input, shape ``(classes,)``."""

        def plan() -> Plan[torch.Tensor]:
            tensor = torch.from_numpy(image).to(runtime.device, runtime.dtype)
            step = yield Forward(Clean(tensor), outputs=True)
            logits: torch.Tensor = step.outputs[0]
            return logits

        report = self._scheduler.submit(f"load-{package}", runtime, [Planned(plan(), 1)])
        (outcome,) = report.result(LIMIT).outcomes
        if isinstance(outcome, WhylightError):
            raise outcome
        return outcome.double().cpu().numpy()


def _records(
    manifest: Manifest, folder: Path, runtime: Runtime, entry: ModelEntry, facts: ModelFacts
) -> Records:
    """Return the model's records; what no package brought is to be measured, cheapest first."""
    dtype = str(runtime.dtype).removeprefix("torch.")
    subject = Subject(manifest, dtype, _hindrance(manifest, runtime.probed))
    records = Records(subject, _brought(manifest, folder))
    ordinary = defaults(entry.methods, facts).values()
    for method in sorted(ordinary, key=lambda each: each.estimate(runtime.shape, 1).effort):
        records.record(method)
    return records


def _hindrance(manifest: Manifest, probe: Probe) -> Hindrance | None:
    """Return why no method can be certified for a model, if so."""
    if Ability.EXCLUSIVE not in probe.abilities:
        return "model_not_lent"
    return "no_calibration_set" if manifest.calibration is None else None


def _brought(manifest: Manifest, folder: Path) -> tuple[MethodRecord, ...]:
    """Return the records that the package brings; those of another version count for nothing."""
    found: list[MethodRecord] = []
    for each in manifest.files:
        if each.role == "certificates":
            with suppress(ValidationError):
                found += read_records((folder / each.path).read_bytes())
    return tuple(found)
