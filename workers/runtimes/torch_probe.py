"""What an eager model can do: tried, never declared."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from service.errors import ModelUnavailable
from workers.passes import Ability
from workers.runtimes.base import LayerFacts, Probe
from workers.runtimes.capture import Capture
from workers.runtimes.memory import bytes_a_row
from workers.runtimes.rules import rectifiers

CHEAP: Final = 0.02
"""Share of a forward pass under which a head's backward pass is negligible."""

TRIES: Final = 3
SEED: Final = 20_231


class Subject(Protocol):
    """The runtime under the probe."""

    model: nn.Module
    shape: tuple[int, ...]
    layers: tuple[str, ...]
    dtype: torch.dtype
    device: torch.device

    def capture_all(self, batch: Tensor) -> tuple[object, Capture]:
        """Run the model with a gradient everywhere."""

    def forward(
        self, batch: Tensor, places: set[str], at: set[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the model with the graph cut at the shallowest place."""


def probe(subject: Subject) -> Probe:
    """Try every kind of pass on noise.

    Raises
    ------
    ModelUnavailable
        If the model does not put out one tensor with a row for each input row.
    """
    batch = _noise(subject, 1)
    outputs, capture = subject.capture_all(batch)
    if not isinstance(outputs, Tensor) or outputs.dim() < 1 or outputs.shape[0] != 1:
        raise ModelUnavailable("The model must put out one tensor with one row for each input.")
    layers, refused = _layers(subject, capture, outputs)
    gradient = _leads_to(outputs, batch)
    abilities = {Ability.FORWARD, Ability.EXCLUSIVE}
    abilities |= {Ability.INPUT_GRADIENT} if gradient else set()
    abilities |= {Ability.ACTIVATIONS} if layers else set()
    abilities |= {Ability.LAYER_GRADIENT} if layers and gradient else set()
    unable = _unable(outputs) if gradient else {}
    abilities |= {Ability.RECTIFIER_RULES} if gradient and not unable else set()
    kinds = {"forward": False} | ({"gradient": True} if gradient else {})
    seconds = {kind: _seconds(_runner(subject, grad), 1) for kind, grad in kinds.items()}
    return Probe(
        abilities=frozenset(abilities),
        layers=layers,
        refused=refused,
        outputs=tuple(outputs.shape[1:]),
        mixes_rows=_mixes_rows(subject) if gradient else True,
        row_seconds=seconds,
        row_bytes={
            kind: bytes_a_row(_runner(subject, grad), subject.model) for kind, grad in kinds.items()
        },
        cheap_heads=frozenset(
            layer.name
            for layer in layers
            if gradient and _head_seconds(subject, layer.name) < CHEAP * seconds["forward"]
        ),
        unable=unable,
    )


def _noise(subject: Subject, rows: int) -> Tensor:
    """Return rows of standard normal noise, the same at every probe."""
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(rows, *subject.shape, generator=generator)
    return noise.to(subject.device, subject.dtype)


def _layers(
    subject: Subject, capture: Capture, outputs: Tensor
) -> tuple[tuple[LayerFacts, ...], dict[str, str]]:
    """Tell the declared layers that can be used from those that cannot, and why."""
    usable, refused = [], {}
    for layer in subject.layers:
        fault = capture.fault(layer)
        if fault is not None:
            refused[layer] = fault.detail
        elif outputs.requires_grad and not _leads_to(outputs, capture.found[layer]):
            refused[layer] = f"No gradient leads from the score to '{layer}'."
        else:
            usable.append(layer_facts(layer, capture.found[layer].shape[1:], subject.shape))
    return tuple(usable), refused


def layer_facts(name: str, shape: Sequence[int], image: Sequence[int]) -> LayerFacts:
    """Return a layer's facts from the shapes of its output and of the input, for one row."""
    spatial, grid = image[1:], shape[1:]
    fits = len(grid) == len(spatial) > 0
    stride = tuple(size / cell for size, cell in zip(spatial, grid, strict=True)) if fits else ()
    return LayerFacts(name, tuple(shape), stride)


def _unable(outputs: Tensor) -> dict[Ability, str]:
    """Return what cannot be asked of the graph that led to `outputs`, with the reason."""
    _, fault = rectifiers(outputs)
    return {} if fault is None else {Ability.RECTIFIER_RULES: fault}


def _leads_to(outputs: Tensor, place: Tensor) -> bool:
    """Tell whether the outputs depend differentiably on `place`."""
    if not outputs.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(outputs.sum(), [place], retain_graph=True, allow_unused=True)
    return gradient is not None


def _mixes_rows(subject: Subject) -> bool:
    """Tell whether a row's outputs depend on another row: exact, no tolerance needed."""
    batch = _noise(subject, 2).requires_grad_()
    with torch.enable_grad():
        outputs = subject.model(batch)
        (gradient,) = torch.autograd.grad(outputs[0].sum(), [batch])
    return bool(gradient[1].ne(0).any())


def _runner(subject: Subject, gradient: bool) -> Callable[[int], object]:
    """Return a run of the model, with the input's gradient or without, for some rows."""

    def run(rows: int) -> object:
        batch = _noise(subject, rows).requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            outputs = subject.model(batch)
            return torch.autograd.grad(outputs.sum(), [batch]) if gradient else outputs

    return run


def _head_seconds(subject: Subject, layer: str) -> float:
    """Return the seconds of one backward pass from the score to a layer."""
    outputs, found = subject.forward(_noise(subject, 1), {layer}, {layer})
    total = outputs.sum()
    return _seconds(lambda _: torch.autograd.grad(total, [found[layer]], retain_graph=True), 1)


def _seconds(run: Callable[[int], object], rows: int) -> float:
    """Return the usual seconds of a run, after one to warm up."""
    run(rows)
    spent = []
    for _ in range(TRIES):
        began = time.perf_counter()
        run(rows)
        spent.append(time.perf_counter() - began)
    return median(spent)
