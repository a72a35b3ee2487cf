"""How a package becomes a model: built, tested, probed; or refused with the reason."""

import gc
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from service.domain.catalog import ModelEntry
from service.domain.certificate import MethodRecord
from service.domain.files import SelfTest
from service.domain.grid import Grid
from service.domain.inputs import SlidingWindow
from service.domain.manifest import Manifest
from service.domain.precision import PrecisionRecord
from service.errors.base import WhylightError
from service.errors.models import ModelUnavailable
from service.records import read_listed
from service.settings import RemoteSettings
from service.telemetry import MODEL_LOAD_SECONDS, MODEL_MEMORY
from workers import activation, selftests
from workers.acceptance import fitted
from workers.bags import bagged, weighed
from workers.catalog import defaults, demand_methods, ready_model
from workers.device import release_memory
from workers.document import model_ref
from workers.gaps import gaps
from workers.margins import known_margins
from workers.methods.base import METHODS, ModelFacts
from workers.model import Model
from workers.passes import Ability, Forward, Plan
from workers.precisions import Hindrance, Precisions
from workers.records import Records, Subject
from workers.regions import read_mask
from workers.replicas import Replicas
from workers.rows import Given
from workers.running import Planned
from workers.runtimes.base import RUNTIMES, Probe, Runtime
from workers.scheduler import Scheduler
from workers.sliding.passes import Sliding, windowed
from workers.slots import Slots
from workers.stages.prepare import parse_steps
from workers.tabular import Tabular, accompanied
from workers.targets import expected
from workers.targets.scalars import ClassLogit
from workers.unnoticed import unnoticed
from workers.views import cost_of, kept_apart

T = TypeVar("T")

Shape = tuple[int, ...]

UNASKED: Final = 64
"""Forward passes to a map, or their like, beyond which a method is measured when asked for."""


class Loader:
    """Makes models of unpacked packages; any thread but the device's own may call.

    Weights are read in that thread and test inputs are decoded in the slots.
    The device's owner thread only moves and probes the model, between two
    batches, and the tests' passes take turns with those of jobs. With
    `fixed_rows` the models run in the deterministic mode. What was measured in
    lower precisions is looked for by `find`. Models may run on the servers that
    `remote` lists. No step of loading on the device may take longer than `limit` seconds.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        device: torch.device,
        slots: Slots,
        scratch: Path,
        *,
        fixed_rows: int | None = None,
        find: Callable[[str], PrecisionRecord | None] = lambda _: None,
        remote: RemoteSettings | None = None,
        limit: float | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._device = device
        self._slots = slots
        self._scratch = scratch
        self._fixed_rows = fixed_rows
        self._find = find
        self._remote = remote
        self._limit = limit

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
        ModelSilent
            The server that the model runs on does not answer.
        """
        began = time.monotonic()
        region = read_mask(manifest, folder)
        rules = manifest.sliding_window
        runtime, shape, passed = self._tested(manifest, package, folder)
        manifest = fitted(manifest, shape[0])
        try:
            probe = self._owned(lambda: runtime.probed)
            probe = probe if rules is None else windowed(probe, rules)
            probe = kept_apart(manifest, bagged(manifest, probe), shape[1])
            apart = gaps(manifest, folder, shape, partial(self._logits, runtime, package))
            blind = unnoticed(
                manifest,
                folder,
                passed,
                lambda other, each: selftests.prepared(
                    other, each.test, folder, self._slots, self._scratch
                )[0],
                partial(self._passes, runtime, manifest, package),
            )
        except WhylightError:
            self._owned(lambda: self._scheduler.forget(runtime))
            raise
        layers = tuple(layer.name for layer in probe.layers)
        facts = ModelFacts(
            layers=layers,
            linear_heads=tuple(layer for layer in layers if layer in probe.linear_heads),
            attentions=probe.attentions,
            tokens=probe.tokens,
            baseline=manifest.explain.baseline,
            sizes=tuple(shape[1:]) if rules is None or rules.blend != "none" else rules.size,
        )
        seconds = time.monotonic() - began
        entry = ready_model(
            manifest, package, probe, shape, facts, load_seconds=seconds, unnoticed=blind
        )
        _tell(manifest, probe, seconds)
        records = _records(manifest, folder, runtime, entry, facts)
        ref = model_ref(manifest, package, probe.remote)
        precisions = Precisions(
            records.subject, self._device.type, _hindrance(manifest, probe), self._find
        )
        _bring(precisions, manifest, folder)
        return Model(
            manifest=manifest,
            ref=ref,
            facts=facts,
            entry=entry,
            records=records,
            precisions=precisions,
            replicas=Replicas(runtime),
            region=region,
            gaps=apart,
            known_margins=known_margins(manifest, folder, shape),
        )

    def restore(self, model: Model, folder: Path) -> None:
        """Bring a model into memory again; its self-tests are run, what was probed is known.

        Raises
        ------
        ModelUnavailable
            It answers its self-tests otherwise than before.
        """
        began = time.monotonic()
        known = model.replicas.probed
        runtime, *_ = self._tested(model.manifest, model.ref.package, folder, known)
        self._owned(lambda: model.replicas.restore(runtime))
        MODEL_LOAD_SECONDS.labels(model=model.manifest.ref).set(time.monotonic() - began)

    def unload(self, model: Model) -> None:
        """Take a model out of memory."""

        def forget() -> None:
            for each in model.replicas.dismiss():
                self._scheduler.forget(each)
            gc.collect()  # replicas refer to themselves
            release_memory(self._device)

        self._owned(forget)

    def _tested(
        self, manifest: Manifest, package: str, folder: Path, known: Probe | None = None
    ) -> tuple[Runtime, Shape, tuple[selftests.Passed, ...]]:
        """Open a package, and have its self-tests answered.

        Parameters
        ----------
        known
            What was probed when it was opened before.

        Returns
        -------
        tuple
            What serves it, the shape of a whole input ``(C, *spatial)``, and the tests.
        """
        parse_steps(manifest.image.steps)
        demand_methods(manifest)
        inputs = [
            selftests.prepared(manifest, test, folder, self._slots, self._scratch)
            for test in manifest.selftests
        ]
        shape, rules = inputs[0][0].shape, manifest.sliding_window
        taken = shape if rules is None else (shape[0], *rules.size)
        opener = RUNTIMES[manifest.runtime](self._remote)
        opened = opener.open(manifest, folder, taken, self._device, self._fixed_rows)

        def made() -> Runtime:
            runtime = opened()
            if known is not None:
                runtime.recall(known)
            return runtime

        runtime = self._owned(made)
        beside = [_beside(manifest, test, runtime) for test in manifest.selftests]
        try:
            self._require_bag(manifest, runtime, package, inputs[0][0], beside[0])
            answers, passed = [], []
            cases = zip(manifest.selftests, inputs, beside, strict=True)
            for test, (image, grid), values in cases:
                batch = torch.from_numpy(image)[None]
                with activation.demanded_probabilities(manifest):
                    (outputs,) = self._logits(runtime, package, batch, rules, values)
                said = self._said(runtime, manifest, test, outputs, grid)
                selftests.compare(test, said)
                answers.append(outputs)
                passed.append(selftests.Passed(test, image, grid, values, said))
            first = torch.from_numpy(inputs[0][0])[None]
            if known is None:
                activation.demand_logits(
                    manifest,
                    answers,
                    lambda factor: self._logits(runtime, package, first * factor, rules, beside[0])[
                        0
                    ],
                )
        except WhylightError:
            self._owned(lambda: self._scheduler.forget(runtime))
            raise
        return runtime, shape, tuple(passed)

    def _passes(
        self,
        runtime: Runtime,
        manifest: Manifest,
        package: str,
        passed: selftests.Passed,
        image: NDArray[np.float32],
    ) -> bool:
        """Tell whether a self-test would be passed on another image."""
        batch = torch.from_numpy(image)[None]
        try:
            (outputs,) = self._logits(runtime, package, batch, None, passed.beside)
            said = self._said(runtime, manifest, passed.test, outputs, passed.grid)
            selftests.compare(passed.test, said)
        except WhylightError:
            return False
        return True

    def _said(
        self,
        runtime: Runtime,
        manifest: Manifest,
        test: SelfTest,
        outputs: NDArray[np.float64],
        grid: Grid,
    ) -> NDArray[np.float64]:
        """Return what a test is held against; of a detector, hold its boxes as well."""
        if manifest.task != "detection":
            return selftests.answered(manifest, activation.told(manifest, outputs), grid.shape)
        probed = self._owned(lambda: runtime.probed).outputs
        return expected.demand_boxes(manifest, test, torch.from_numpy(outputs), grid, probed)

    def _require_bag(
        self,
        manifest: Manifest,
        runtime: Runtime,
        package: str,
        image: NDArray[np.float32],
        tabular: Tabular | None,
    ) -> None:
        """Require of a model of bags that it takes one instance less, and shows its attention.

        Raises
        ------
        ModelUnavailable
            It does not.
        """
        bag = manifest.image.bag
        if bag is None:
            return
        rows = torch.from_numpy(image).to(runtime.device, runtime.dtype)
        plan = accompanied(weighed(bag, rows, (ClassLogit(0),)), tabular)
        report = self._scheduler.submit(
            f"load-{package}", runtime, [Planned(plan, len(rows[0]) + 1)]
        )
        (outcome,) = self._awaited(report).outcomes
        if isinstance(outcome, WhylightError):
            raise ModelUnavailable(
                "A model of bags must take any number of instances and put out the attention that"
                " it names, one number for each; 'reason' says what failed.",
                pointer="/inputs/0/bag",
                reason=outcome.failure().code,
            ) from outcome

    def _owned(self, work: Callable[[], T]) -> T:
        """Have the owner thread do something between two batches."""
        return self._awaited(self._scheduler.call(work))

    def _awaited(self, promised: "Future[T]") -> T:
        """Wait for the owner thread, but not for ever.

        Raises
        ------
        ModelUnavailable
            It took too long.
        """
        try:
            return promised.result(self._limit)
        except TimeoutError:
            raise ModelUnavailable(
                "Probing the model, or a self-test of it, takes longer than a worker may spend on"
                " it: raise WHYLIGHT_WORKER__LOAD_LIMIT, or give the network smaller windows.",
                limit_seconds=self._limit,
            ) from None

    def _logits(
        self,
        runtime: Runtime,
        package: str,
        images: torch.Tensor,
        rules: SlidingWindow | None = None,
        tabular: Tabular | None = None,
    ) -> NDArray[np.float64]:
        """Return the model's answers on prepared inputs, shape ``(N, classes, ...)``.

        `tabular` is what stands beside each, if something does.
        """

        def plan() -> Plan[torch.Tensor]:
            step = yield Forward(Given(images.to(runtime.device, runtime.dtype)), outputs=True)
            outputs: torch.Tensor = step.outputs
            return outputs

        like = torch.zeros(0, dtype=runtime.dtype, device=runtime.device)
        sliding = rules and Sliding(rules, like)
        asked = accompanied(sliding.led(plan()) if sliding else plan(), tabular)
        planned = Planned(asked, len(images))
        report = self._scheduler.submit(f"load-{package}", runtime, [planned])
        (outcome,) = self._awaited(report).outcomes
        if isinstance(outcome, WhylightError):
            raise outcome
        return outcome.double().cpu().numpy()


def _beside(manifest: Manifest, test: SelfTest, runtime: Runtime) -> Tabular | None:
    """Return what stands beside a self-test's image, if something does."""
    if not manifest.variables:
        return None
    given = [each.number(test.values[each.key]) for each in manifest.variables]
    like = torch.zeros(0, dtype=runtime.dtype, device=runtime.device)
    return Tabular.of(manifest.variables, given, like)


def _tell(manifest: Manifest, probe: Probe, seconds: float) -> None:
    """Show how long a model took to load, and what memory it takes."""
    MODEL_LOAD_SECONDS.labels(model=manifest.ref).set(seconds)
    MODEL_MEMORY.labels(model=manifest.ref, part="fixed").set(probe.fixed_bytes)
    for kind, size in probe.row_bytes.items():
        MODEL_MEMORY.labels(model=manifest.ref, part=f"{kind}_row").set(size)


def _records(
    manifest: Manifest, folder: Path, runtime: Runtime, entry: ModelEntry, facts: ModelFacts
) -> Records:
    """Return the model's records; what no package brought is to be measured, cheapest first.

    What is dear is measured when it is first asked for: most is never asked.
    """
    dtype = str(runtime.dtype).removeprefix("torch.")
    probe = runtime.probed
    subject = Subject(manifest, dtype, probe.remote, surrogate=probe.stood_in)
    records = Records(subject, _brought(manifest, folder))
    ordinary = defaults(entry.methods, facts).values()
    several = manifest.image.several
    efforts = [
        (cost_of(method, runtime.shape, 1, several=several).effort, method) for method in ordinary
    ]
    for effort, method in sorted(efforts, key=itemgetter(0)):
        if effort <= UNASKED or records.at_hand(method):
            records.record(method)
    return records


def _hindrance(manifest: Manifest, probe: Probe) -> Hindrance | None:
    """Return why no method can be had in a lower precision on a model, if so."""
    if Ability.EXCLUSIVE not in probe.abilities - probe.surrogate:  # no model could be copied
        return "runtime_cannot"
    return "no_calibration_set" if manifest.calibration is None else None


def _bring(precisions: Precisions, manifest: Manifest, folder: Path) -> None:
    """Take in what the package brings that was measured on this model, on such a device."""
    for each in manifest.files:
        if each.role != "precisions":
            continue
        with suppress(ValidationError):  # of another version, or of parameters that are none
            for record in read_listed((folder / each.path).read_bytes(), PrecisionRecord):
                if record.method not in METHODS:  # an optional part
                    continue
                method = METHODS[record.method].model_validate(record.parameters)
                if precisions.fits(record, method):
                    precisions.keep(record)


def _brought(manifest: Manifest, folder: Path) -> tuple[MethodRecord, ...]:
    """Return the records that the package brings; those of another version count for nothing."""
    found: list[MethodRecord] = []
    for each in manifest.files:
        if each.role == "certificates":
            with suppress(ValidationError):
                found += read_listed((folder / each.path).read_bytes(), MethodRecord)
    return tuple(found)
