"""ONNX on onnxruntime: forward passes, and the outputs of declared layers.

The session is built from bytes, so external data cannot be reached; declared
layers are appended to the graph's outputs and asked for by name in each call.
There are no gradients.
"""

import copy
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any, Final, NoReturn

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from typing_extensions import override

from service.domain.manifest import Manifest
from service.errors import InvalidPackage, UnservablePass
from workers.device import memory_budget
from workers.passes import Ability, Exclusive
from workers.runtimes.base import RUNTIMES, Fit, Opener, Probe, Segment, Served, Work
from workers.runtimes.batch import filled, guarded_scores, row_shape, spans
from workers.runtimes.torch_probe import layer_facts

SEED: Final = 20_231
TRIES: Final = 3

ROW_BYTES_A_PIXEL: Final = 256
"""Working memory assumed for each input value: onnxruntime tells of none.

DenseNet-121, the hungriest forward pass measured, takes 66.
"""


@dataclass(frozen=True, slots=True)
class Group:
    """What works must have in common to share a call of the session."""

    shape: tuple[int, ...]
    taps: tuple[str, ...]
    outputs: bool


class OnnxRuntime:
    """One ONNX model on the CPU.

    Parameters
    ----------
    model
        Bytes of a single-file ONNX model with one input ``(N, C, *spatial)``;
        its first output is explained.
    shape
        Shape of one row, ``(C, *spatial)``.
    layers
        Names of layers that methods may use, each with its tensor in the graph.
    fixed_rows
        Pad every batch to this many rows: the deterministic mode.

    Raises
    ------
    InvalidPackage
        If the bytes are no such model.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(
        self,
        model: bytes,
        shape: Sequence[int],
        layers: Mapping[str, str] | None = None,
        *,
        fixed_rows: int | None = None,
    ) -> None:
        self.shape = tuple(shape)
        self.fixed_rows = fixed_rows
        try:
            graph = onnx.load_from_string(model)
            self._output = graph.graph.output[0].name
            self._tensors, self._missing = _exposed(graph, layers or {})
            self._session = _session(graph.SerializeToString())
            (self._input,) = self._session.get_inputs()
        except Exception:  # noqa: BLE001 - foreign parsers raise what they like
            raise InvalidPackage(
                "The ONNX model cannot be read; it must be one file with one input."
            ) from None

    @cached_property
    def probed(self) -> Probe:
        """What the session can do; measured at the first call."""
        one = self._noise(1)
        outputs, *taps = self._run(one, [self._output, *self._tensors.values()])
        layers = tuple(
            layer_facts(name, tap.shape[1:], self.shape)
            for name, tap in zip(self._tensors, taps, strict=True)
        )
        return Probe(
            abilities=frozenset({Ability.FORWARD} | ({Ability.ACTIVATIONS} if layers else set())),
            layers=layers,
            refused={name: f"The graph has no tensor for '{name}'." for name in self._missing},
            outputs=tuple(outputs.shape[1:]),
            mixes_rows=self._mixes_rows(),
            row_seconds={"forward": self._seconds(one)},
            row_bytes={"forward": ROW_BYTES_A_PIXEL * one.numel()},
        )

    def group(self, work: Work) -> Hashable:
        """Return a key; works with equal keys may share a batch.

        Raises
        ------
        UnservablePass
            If a gradient or an ablation is wanted, or the graph has no such layer.
        """
        if work.at:
            raise UnservablePass("The ONNX runtime gives no gradients.")
        if work.ablated is not None:
            raise UnservablePass("The ONNX runtime cannot change what a layer puts out.")
        taps = tuple(tap.place for tap in work.taps)
        if unknown := set(taps) - set(self._tensors):
            raise UnservablePass(f"The model has no usable layer {', '.join(sorted(unknown))}.")
        return Group(row_shape(work), taps, work.outputs)

    def fits(self, group: Hashable) -> Fit:  # noqa: ARG002 - all groups need alike
        """Return how many rows of the group one batch may hold."""
        fixed = self.fixed_rows is not None
        if self.probed.mixes_rows:
            return Fit(rows=1, fixed=fixed)
        if self.fixed_rows is not None:
            return Fit(rows=self.fixed_rows, fixed=True)
        return Fit(rows=max(1, memory_budget(self.device) // self.probed.row_bytes["forward"]))

    def serve(self, group: Hashable, segments: Sequence[Segment]) -> list[Served | Exception]:
        """Run one batch; one answer for each segment, in order."""
        assert isinstance(group, Group)  # noqa: S101 - the key is this runtime's own
        rows = sum(segment.count for segment in segments)
        size = max(rows, self.fits(group).rows) if self.fixed_rows is not None else rows
        batch, failures = filled(segments, size, self.dtype, self.device)
        names = [self._output, *(self._tensors[tap] for tap in group.taps)]
        outputs, *found = self._run(batch, names)
        taps = dict(zip(group.taps, found, strict=True))
        return [
            failures.get(k) or _served(segment.work, outputs[span], taps, span)
            for k, (segment, span) in enumerate(zip(segments, spans(segments), strict=True))
        ]

    def lend(self, work: Exclusive, until: float) -> NoReturn:  # noqa: ARG002 - nothing to lend
        """Refuse: there is no model object to lend.

        Raises
        ------
        UnservablePass
            Always.
        """
        raise UnservablePass("The ONNX runtime has no model to lend.")

    def variant(self, model: nn.Module | None) -> "OnnxRuntime":
        """Serve the same session a row at a time; it has no other weights.

        Raises
        ------
        UnservablePass
            If a model is given: none was lent.
        """
        if model is not None:
            raise UnservablePass("The ONNX runtime has no model to lend.")
        variant = copy.copy(self)
        variant.fixed_rows = 1
        return variant

    def recast(self, dtype: torch.dtype) -> NoReturn:  # noqa: ARG002 - nothing to copy
        """Refuse: there is no model object to copy.

        Raises
        ------
        UnservablePass
            Always.
        """
        raise UnservablePass("The ONNX runtime computes in the type that its file was made for.")

    def check(self) -> None:
        """Do nothing: a session cannot be changed."""

    def _run(self, batch: Tensor, names: Sequence[str]) -> list[Tensor]:
        given: list[Any] = self._session.run(list(names), {self._input.name: batch.numpy()})
        return [torch.from_numpy(np.asarray(each)) for each in given]

    def _noise(self, rows: int) -> Tensor:
        """Return rows of standard normal noise, the same at every probe."""
        return torch.randn(rows, *self.shape, generator=torch.Generator().manual_seed(SEED))

    def _mixes_rows(self) -> bool:
        """Tell whether a row's bits depend on its neighbor; also true if two rows are refused."""
        two = self._noise(2)
        other = two.clone()
        other[1] = 0
        try:
            (first,), (second,) = (self._run(each, [self._output]) for each in (two, other))
        except Exception:  # noqa: BLE001 - a model exported with a fixed batch raises its own
            return True
        return not torch.equal(first[0], second[0])

    def _seconds(self, batch: Tensor) -> float:
        spent = []
        for _ in range(TRIES):
            began = time.perf_counter()
            self._run(batch, [self._output])
            spent.append(time.perf_counter() - began)
        return median(spent)


def _exposed(graph: Any, layers: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Append the layers' tensors to the graph's outputs; return those found and those missing."""
    made = {name for node in graph.graph.node for name in node.output}
    outputs = {output.name for output in graph.graph.output}
    found = {layer: tensor for layer, tensor in layers.items() if tensor in made}
    for tensor in dict.fromkeys(found.values()):
        if tensor not in outputs:
            graph.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return found, [layer for layer in layers if layer not in found]


def _session(model: bytes) -> Any:
    """Return a session with one thread: workers are as many as cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its texts may quote what it read
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _served(
    work: Work, outputs: Tensor, taps: Mapping[str, Tensor], span: slice
) -> Served | Exception:
    """Return what the batch gave for one segment."""
    scores = guarded_scores(outputs, work) if work.targets else None
    if isinstance(scores, Exception):
        return scores
    return Served(
        scores=scores,
        taps={tap: taps[tap.place][span] for tap in work.taps},
        outputs=outputs if work.outputs else None,
    )


@RUNTIMES.register("onnx")
class OnnxOpener(Opener):
    """Single-file ONNX graphs."""

    @override
    def open(
        self,
        manifest: Manifest,
        folder: Path,
        shape: tuple[int, ...],
        device: torch.device,
        fixed_rows: int | None = None,
    ) -> Callable[[], OnnxRuntime]:
        """Hand the package's graph, as bytes, to onnxruntime; it runs on the CPU."""
        file = manifest.file("forward", "onnx")
        layers = {each.name: each.onnx for each in manifest.explain.layers if each.onnx}
        content = (folder / file.path).read_bytes()
        return partial(OnnxRuntime, content, shape, layers, fixed_rows=fixed_rows)
