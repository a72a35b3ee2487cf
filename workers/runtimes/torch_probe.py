"""What an eager model can do: tried, never declared."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Final, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from service.errors.models import LayerAmbiguous, LayerNotCaptured, ModelUnavailable, UnservablePass
from service.wording import nearest
from workers.device import is_out_of_memory, synchronize
from workers.passes import Ability
from workers.runtimes.attention import Attentions
from workers.runtimes.base import LayerFacts, Probe
from workers.runtimes.bypass import bypass_fault
from workers.runtimes.capture import Capture
from workers.runtimes.memory import needed, weight_bytes
from workers.runtimes.path import path_fault
from workers.runtimes.places import Places
from workers.runtimes.rescale import rescale_fault
from workers.runtimes.rules import rectifiers
from workers.runtimes.token_paths import unseen_path
from workers.sameness import ALIKE, same
from workers.tokens import Tokens
from workers.twins import copies

CHEAP: Final = 0.02
"""Share of a forward pass under which a head's backward pass is negligible."""

SHIFTS: Final = (0.0, 3.0, -3.0, 10.0, -10.0)
"""Gray added to noise images on which a linear head is told from another.

Noise alone hardly moves a mean: a bend in the head would not be seen.
"""

EQUAL: Final = 1e-4
"""Share of the largest value within which rounding may part what is the same."""

UNPLACED: Final = (
    "Where tokens lie in the image is not known of this network; of a transformer, 'tokens' in its"
    " model.yaml tells it."
)
WINDOWED: Final = (
    "Its tokens attend within windows and are merged on the way: there is no attention of all "
    "tokens to all to be followed from block to block."
)

UNCOPIED: Final = (
    "A copy of the network does not answer as the network does: it has a hook or a function that"
    " holds the network itself, or it changes from run to run."
)

OF_GRADIENTS: Final = frozenset(
    {
        Ability.RECTIFIER_RULES,
        Ability.LINEAR_HEAD,
        Ability.ATTENTION,
        Ability.RESCALE_RULE,
        Ability.PATH_GRADIENT,
    }
)
"""What a model with gradients is able to, unless a trial found why not."""

RESCALED: Final = 3
"""Of these images, those between which contributions must add up."""

TRIES: Final = 3
SEED: Final = 20_231

FAR: Final = 1e3
"""How far beyond standard normal noise a trial goes to find what noise does not reach."""


class Sized(Protocol):
    """What rows of noise are made for."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class Subject(Sized, Protocol):
    """The runtime under the probe."""

    model: nn.Module
    served: nn.Module
    """The model, or one of the same outputs that shares most of its weights."""

    layers: tuple[str, ...]
    tokens: Tokens | None
    reasons: Mapping[str, str]
    """Why layers were chosen, where the package names none."""

    def on_grid(self, output: Tensor) -> Tensor:
        """Return a layer's output as a grid if it is tokens."""

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
        If the model does not put out one tensor with a row for each input row, or does not
        say the same of the same image.
    InvalidPackage
        If the package says of its tokens what is not so.
    """
    batch = noise(subject, 1)
    outputs, capture = subject.capture_all(batch)
    if not _are_rows(outputs):
        raise ModelUnavailable(
            "The model must put out one tensor of real numbers with one row for each input,"
            " of shape (N, outputs) or (N, outputs, *spatial)."
        )
    demand_one_answer(outputs, subject.capture_all(batch)[0])
    layers, refused = _layers(subject, capture, outputs)
    gradient = _leads_to(outputs, batch)
    heads = _linear_heads(subject, layers) if gradient else frozenset()
    unable = _unable(subject, outputs, heads) if gradient else {}
    attentions, unseen = _attentions(subject, batch, outputs) if gradient else ((), "")
    unable |= {} if attentions else {Ability.ATTENTION: unseen}
    unable |= {} if copies(subject.model, noise(subject, 1)) else {Ability.EXCLUSIVE: UNCOPIED}
    held = nn.ModuleList((subject.model, subject.served))
    runs = {"forward": _runner(subject, gradient=False)}
    runs |= {"gradient": _runner(subject, gradient=True)} if gradient else {}
    seconds = {kind: _seconds(run, 1, subject.device) for kind, run in runs.items()}
    mixes = _mixes_rows(subject) if gradient else True
    rows = (1,) if mixes else (1, 2)
    needs = {kind: needed(run, held, subject.device, rows) for kind, run in runs.items()}
    return Probe(
        abilities=_abilities(gradient, bool(layers), unable),
        layers=layers,
        refused=refused,
        outputs=tuple(outputs.shape[1:]),
        mixes_rows=mixes,
        row_seconds=seconds,
        row_bytes={kind: need.row for kind, need in needs.items()},
        fixed_bytes=weight_bytes(held) + max(need.fixed for need in needs.values()),
        cheap_heads=frozenset(
            layer.name
            for layer in layers
            if gradient and _head_seconds(subject, layer.name) < CHEAP * seconds["forward"]
        ),
        linear_heads=heads,
        tokens=subject.tokens,
        attentions=attentions,
        unable=unable,
    )


def _are_rows(outputs: object) -> TypeGuard[Tensor]:
    """Tell whether something is what a model puts out for one row."""
    return (
        isinstance(outputs, Tensor)
        and outputs.is_floating_point()
        and outputs.dim() > 1
        and outputs.shape[0] == 1
    )


def demand_one_answer(first: Tensor, second: object) -> None:
    """Require that a model says the same when it is asked the same again.

    Each of a method's rows is held against others: what moves by itself would be told as
    the image's doing.

    Raises
    ------
    ModelUnavailable
        It does not.
    """
    if not isinstance(second, Tensor) or not same(second, first, ALIKE):
        raise ModelUnavailable(
            "The network says something else each time it is asked the same. Take out what draws at"
            " random (dropout that stays on) or remembers (buffers and counters that the forward"
            " pass changes)."
        )


def _abilities(gradient: bool, layers: bool, unable: Mapping[Ability, str]) -> frozenset[Ability]:
    """Return what a model can do that has a gradient or none, and usable layers or none."""
    found = {Ability.FORWARD, Ability.EXCLUSIVE}.difference(unable)
    found |= {Ability.ACTIVATIONS, Ability.ABLATION} if layers else set()
    found |= {Ability.INPUT_GRADIENT, *OF_GRADIENTS.difference(unable)} if gradient else set()
    found |= {Ability.LAYER_GRADIENT} if layers and gradient else set()
    return frozenset(found)


def noise(subject: Sized, rows: int) -> Tensor:
    """Return rows of standard normal noise, the same at every probe."""
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(rows, *subject.shape, generator=generator)
    return noise.to(subject.device, subject.dtype)


def _layers(
    subject: Subject, capture: Capture, outputs: Tensor
) -> tuple[tuple[LayerFacts, ...], dict[str, str]]:
    """Tell the declared layers that can be used from those that cannot, and why."""
    usable, refused = [], {}
    places = Places(subject.model, noise(subject, 2), subject.tokens)
    names = {name for name, _ in subject.model.named_modules() if name}
    for layer in subject.layers:
        fault = capture.fault(layer)
        if layer not in names:
            refused[layer] = f"The network has no layer '{layer}'.{nearest(layer, names)}"
        elif fault is not None:
            refused[layer] = fault.detail
        elif outputs.requires_grad and not _leads_to(outputs, capture.found[layer]):
            refused[layer] = f"No gradient leads from the score to '{layer}'."
        elif outputs.requires_grad and (
            past := bypass_fault(subject.forward, subject.served, noise(subject, 1), layer)
        ):
            refused[layer] = past
        elif layer not in subject.reasons and (
            astray := places.astray(layer, capture.found[layer])
        ):
            refused[layer] = astray
        else:
            facts = layer_facts(
                layer, subject.on_grid(capture.found[layer]).shape[1:], subject.shape
            )
            usable.append(replace(facts, reason=subject.reasons.get(layer, "")))
    return tuple(usable), refused


def layer_facts(name: str, shape: Sequence[int], image: Sequence[int]) -> LayerFacts:
    """Return a layer's facts from the shapes of its output and of the input, for one row."""
    spatial, grid = image[1:], shape[1:]
    fits = len(grid) == len(spatial) > 0
    stride = tuple(size / cell for size, cell in zip(spatial, grid, strict=True)) if fits else ()
    return LayerFacts(name, tuple(shape), stride)


def _unable(subject: Subject, outputs: Tensor, heads: frozenset[str]) -> dict[Ability, str]:
    """Return what cannot be asked of the model though it has gradients, with the reason."""
    _, fault = rectifiers(outputs)
    unable = {} if fault is None else {Ability.RECTIFIER_RULES: fault}
    if not subject.layers:
        unable |= dict.fromkeys(
            (Ability.ACTIVATIONS, Ability.LAYER_GRADIENT),
            "The package names no layer, and no module's output has a spatial grid.",
        )
    if not heads:
        unable[Ability.LINEAR_HEAD] = (
            "No declared layer is followed by just a mean over its grid and a linear head."
        )
    shifted = _shifted(subject)
    short = path_fault(subject.model, *shifted[:2])
    if short is not None:
        unable[Ability.PATH_GRADIENT] = short
    uneven = rescale_fault(subject.model, torch.cat(shifted[:RESCALED]))
    if uneven is not None:
        unable[Ability.RESCALE_RULE] = uneven
    return unable


def _attentions(subject: Subject, batch: Tensor, outputs: Tensor) -> tuple[tuple[str, ...], str]:
    """Return the places of attention weights that can be seen, or why they cannot."""
    if subject.tokens is None or subject.tokens.stages:
        return (), UNPLACED if subject.tokens is None else WINDOWED
    seen: dict[str, Tensor] = {}

    def take(place: str, weights: object) -> None:
        if isinstance(weights, Tensor):
            seen[place] = weights

    try:
        with torch.enable_grad(), Attentions(take):
            again: Tensor = subject.model(batch)
    except UnservablePass as error:
        return (), error.detail
    square = (subject.tokens.count,) * 2
    if not seen or any(weights.shape[2:] != square for weights in seen.values()):
        return (), "The model has no attention of all tokens to all."
    if not all(_leads_to(again, weights) for weights in seen.values()):
        return (), "No gradient leads from the score to every attention."
    if not torch.allclose(again, outputs, rtol=EQUAL, atol=EQUAL * outputs.abs().max().item()):
        return (), "Attention that is looked into gives other scores."
    unseen = unseen_path(subject.model, batch, subject.tokens)
    return (tuple(seen), "") if unseen is None else ((), unseen)


def _linear_heads(subject: Subject, layers: Sequence[LayerFacts]) -> frozenset[str]:
    """Return the layers of whose mean over the grid alone every output is a linear function."""
    return frozenset(
        layer.name for layer in layers if layer.stride and _linear(subject, layer.name)
    )


def _linear(subject: Subject, layer: str) -> bool:
    """Tell whether a mix of the outputs is ``w mean(F) + b`` with one `w` and one `b` for all.

    The gradient at `F` must be the same at every place and for every input,
    and account for all of the mix but a constant.
    """
    gradients, biases, mixes = [], [], []
    near = _shifted(subject)
    # far from any image, for heads that bend at high scores alone; no constant is left there
    far = [near[0] + FAR, near[0] - FAR]
    for batch in (*near, *far):
        try:
            gradient, features, mix = _head(subject, layer, batch)
        except (LayerNotCaptured, LayerAmbiguous):  # on another input the model goes another way
            return False
        gradients.append(gradient)
        biases.append(mix - (gradient * features).sum())
        mixes.append(mix)
        if not _alike(torch.cat(gradients, 1)):  # most layers end here, after one pass
            return False
    largest = torch.stack(mixes[: len(near)]).abs().max()
    return bool(_spread(torch.stack(biases[: len(near)]), 0) <= EQUAL * largest)


def _shifted(subject: Subject) -> list[Tensor]:
    """Return rows of noise about different grays, one in a batch."""
    rows = noise(subject, len(SHIFTS)).split(1)
    return [row + shift for row, shift in zip(rows, SHIFTS, strict=True)]


def _head(subject: Subject, layer: str, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient at a layer and its output, ``(channels, cells)``, and the mix."""
    outputs, found = subject.forward(batch, {layer}, {layer})
    weights = torch.linspace(1, 2, outputs.numel()).to(outputs).view_as(outputs)
    mix = (outputs * weights).sum()
    (gradient,) = torch.autograd.grad(mix, [found[layer]])
    flat, features = (
        subject.on_grid(each.detach())[0].double().flatten(1) for each in (gradient, found[layer])
    )
    return flat, features, mix.detach().double()


def _alike(gradients: Tensor) -> bool:
    """Tell whether some channel has a gradient, and each the same in all columns."""
    largest = gradients.abs().max()
    return bool(largest > 0 and _spread(gradients, 1).max() <= EQUAL * largest)


def _spread(values: Tensor, axis: int) -> Tensor:
    return values.amax(axis) - values.amin(axis)


def _leads_to(outputs: Tensor, place: Tensor) -> bool:
    """Tell whether the outputs depend differentiably on `place`."""
    if not outputs.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(outputs.sum(), [place], retain_graph=True, allow_unused=True)
    return gradient is not None


def _mixes_rows(subject: Subject) -> bool:
    """Tell whether a row's outputs depend on another row.

    Also true of a model that takes one row alone, such as a graph of a fixed batch.
    """
    batch = noise(subject, 2).requires_grad_()
    with torch.enable_grad():
        try:
            outputs = subject.model(batch)
        except Exception as error:  # it raises its own
            if is_out_of_memory(error):
                raise
            return True
        (gradient,) = torch.autograd.grad(outputs[0].sum(), [batch])
    if bool(gradient[1].ne(0).any()):
        return True
    with torch.no_grad():
        pairs = [(subject.model(one), subject.model(other)) for one, other in beside(subject)]
    return any(_differ(*(each[place] for each in pair)) for place, pair in enumerate(pairs))


def beside(subject: Sized) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return pairs of batches of two rows: the first row, and then the second, is the same in both.

    Its neighbor is zero in one of a pair and far beyond it in the other, above the first row and
    below the second: any statistic of a whole batch, such as its mean, quantiles or extremes, then
    moves by far more than rounding. With neighbors like itself the row may hold the extreme in
    both, and nobody would see that it is looked for among all rows.
    """
    own, nothing = noise(subject, 1), torch.zeros_like(noise(subject, 1))
    above, below = nothing + FAR, nothing - FAR
    return (
        (torch.cat([own, nothing]), torch.cat([own, above])),
        (torch.cat([nothing, own]), torch.cat([below, own])),
    )


def _differ(one: Tensor, other: Tensor) -> bool:
    """Tell whether two answers differ: on the host by a bit, else by more than rounding."""
    if one.device.type == "cpu":
        return not torch.equal(one, other)
    return not torch.allclose(one, other, rtol=0, atol=ALIKE * one.abs().max().item())


def _runner(subject: Subject, gradient: bool) -> Callable[[int], object]:
    """Return a run of the model, with the input's gradient or without, for some rows."""

    def run(rows: int) -> object:
        batch = noise(subject, rows).requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            outputs = subject.served(batch)
            return torch.autograd.grad(outputs.sum(), [batch]) if gradient else outputs

    return run


def _head_seconds(subject: Subject, layer: str) -> float:
    """Return the seconds of one backward pass from the score to a layer."""
    outputs, found = subject.forward(noise(subject, 1), {layer}, {layer})
    total = outputs.sum()
    return _seconds(
        lambda _: torch.autograd.grad(total, [found[layer]], retain_graph=True), 1, subject.device
    )


def _seconds(run: Callable[[int], object], rows: int, device: torch.device) -> float:
    """Return the usual seconds of a run, after one to warm up."""
    run(rows)
    spent = []
    for _ in range(TRIES):
        synchronize(device)
        began = time.perf_counter()
        run(rows)
        synchronize(device)
        spent.append(time.perf_counter() - began)
    return median(spent)
