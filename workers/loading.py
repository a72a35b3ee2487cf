"""How a package becomes a model: built, tested, probed; or refused with the reason."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from service.domain.catalog import ModelEntry
from service.domain.explanation import ModelRef
from service.domain.manifest import Manifest
from service.errors import ModelUnavailable, WhylightError
from workers import selftests
from workers.architectures.base import ARCHITECTURES
from workers.catalog import ready_model
from workers.document import model_ref
from workers.methods.base import ModelFacts
from workers.passes import Forward, Plan
from workers.rows import Clean
from workers.running import Planned
from workers.runtimes.base import Runtime
from workers.runtimes.onnx import OnnxRuntime
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler
from workers.slots import Slots

T = TypeVar("T")

Shape = tuple[int, ...]
Opener = Callable[[Manifest, Path, Shape, torch.device], Callable[[], Runtime]]
"""Reads an unpacked package; returns what makes its runtime in the owner thread."""

LIMIT: Final = 600.0
"""Seconds for one step of loading on the device; large weights take a while."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is ready to be explained."""

    manifest: Manifest
    ref: ModelRef
    facts: ModelFacts
    runtime: Runtime
    entry: ModelEntry


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
        inputs = [
            selftests.prepared(manifest, test, folder, self._slots, self._scratch)
            for test in manifest.selftests
        ]
        shape = inputs[0].shape
        opened = RUNTIMES[manifest.runtime](manifest, folder, shape, self._device)
        runtime = self._owned(opened)
        try:
            for test, image in zip(manifest.selftests, inputs, strict=True):
                selftests.compare(test, self._logits(runtime, package, image))
            probe = self._owned(lambda: runtime.probed)
        except WhylightError:
            self._owned(lambda: self._scheduler.forget(runtime))
            raise
        layers = tuple(layer.name for layer in probe.layers)
        facts = ModelFacts(layers=layers, baseline=manifest.explain.baseline)
        entry = ready_model(manifest, package, probe, shape, facts)
        return Model(manifest, model_ref(manifest, package), facts, runtime, entry)

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


def _open_torch(
    manifest: Manifest, folder: Path, shape: Shape, device: torch.device
) -> Callable[[], Runtime]:
    """Build a network of the allow-list and fill it with the package's weights."""
    file = manifest.file("weights", "safetensors")
    network = _network(manifest)
    try:
        # strict: a missing or an unknown tensor is a wrong network
        network.load_state_dict(load_file(folder / file.path), strict=True)
    except (SafetensorError, RuntimeError):
        raise ModelUnavailable(
            "The weights do not fit the network that the manifest names."
        ) from None
    layers = [layer.name for layer in manifest.explain.layers]
    return partial(TorchRuntime, network, shape, layers, device=device)


def _network(manifest: Manifest) -> nn.Module:
    """Build the network that the manifest names, with fresh weights."""
    wanted = manifest.architecture
    if wanted is None or wanted.name not in ARCHITECTURES:
        raise ModelUnavailable(
            "The network that the manifest names is not on this worker's list.",
            known=list(ARCHITECTURES),
        )
    try:
        return ARCHITECTURES[wanted.name].model_validate(wanted.parameters).build()
    except ValidationError as error:
        fields = sorted({".".join(map(str, each["loc"])) for each in error.errors()})
        raise ModelUnavailable(
            "The network's parameters are not valid.", fields=list(fields)
        ) from None


def _open_onnx(
    manifest: Manifest, folder: Path, shape: Shape, _device: torch.device
) -> Callable[[], Runtime]:
    """Hand the package's graph, as bytes, to onnxruntime."""
    file = manifest.file("forward", "onnx")
    layers = {each.name: each.onnx for each in manifest.explain.layers if each.onnx}
    return partial(OnnxRuntime, (folder / file.path).read_bytes(), shape, layers)


RUNTIMES: Final[Mapping[str, Opener]] = {"torch": _open_torch, "onnx": _open_onnx}
"""How each runtime of a manifest is opened."""
