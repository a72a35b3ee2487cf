"""Weights from elsewhere: names and shapes of a published layout as a network's own.

A layout belongs to an architecture and is our code; what differs from model to
model (prefixes, renamed parts, another head) is declared in ``model.yaml``.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Final, Protocol

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from service.domain.manifest import Manifest
from service.domain.network import Head, HeadLayer, KeyMap
from service.errors.base import WhylightError
from service.errors.models import ModelUnavailable

Weights = dict[str, Tensor]
"""Tensors by their names in a state dict."""

Layout = Callable[[Weights], Weights]
"""Turns the weights of one published layout into those of our network."""


class Published(Protocol):
    """A network with layouts of weights that were published for it."""

    head: ClassVar[str]
    layouts: ClassVar[Mapping[str, Layout]]


SHOWN: Final = 5
"""Names that an error tells of each kind."""

COUNTER: Final = "num_batches_tracked"
"""Of batch norm, for training alone; older files have none."""


@dataclass(frozen=True, slots=True)
class Renamed:
    """A layout by rules; a name that none fits stays as it is.

    Parameters
    ----------
    rules
        Pattern of a whole name and what it becomes, as :mod:`re` writes them; the
        first that fits counts.
    without
        Pattern of whole names that the network makes anew or has no use for.
    shaped
        By pattern of whole new names: what becomes of the tensor.
    """

    rules: Mapping[str, str] = field(default_factory=dict)
    without: str | None = None
    shaped: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)

    def __call__(self, weights: Weights) -> Weights:
        """Return the weights under their new names, in their new shapes."""
        named = renamed(weights, self._name)
        return {name: self._shape(name, tensor) for name, tensor in named.items()}

    def _name(self, name: str) -> str | None:
        if self.without is not None and re.fullmatch(self.without, name):
            return None
        fits = ((re.fullmatch(pattern, name), new) for pattern, new in self.rules.items())
        return next((fit.expand(new) for fit, new in fits if fit), name)

    def _shape(self, name: str, tensor: Tensor) -> Tensor:
        works = (work for pattern, work in self.shaped.items() if re.fullmatch(pattern, name))
        return next(works, lambda same: same)(tensor)


def squeezed(tensor: Tensor) -> Tensor:
    """Return a tensor without axes of length 1."""
    return tensor.squeeze()


def flat(tensor: Tensor) -> Tensor:
    """Return a kernel as the matrix that does the same to its flattened window."""
    return tensor.flatten(1)


def renamed(weights: Weights, new: Callable[[str], str | None]) -> Weights:
    """Return weights under new names; `None` leaves a tensor out.

    Raises
    ------
    ModelUnavailable
        Two tensors get one name.
    """
    found: Weights = {}
    for name, tensor in weights.items():
        if (now := new(name)) is None:
            continue
        if now in found:
            raise ModelUnavailable(
                "Two tensors of the weights get one name; mend 'key_map'.", name=now
            )
        found[now] = tensor
    return found


def install(
    network: nn.Module, weights: Weights, manifest: Manifest, architecture: Published
) -> None:
    """Give a network the head and the weights of a package.

    Raises
    ------
    ModelUnavailable
        The head or the weights do not fit; the failure tells what to mend.
    """
    key_map, head = manifest.key_map, manifest.head
    rest, own = _parted(renamed(weights, partial(_kept, key_map)), head)
    if head is not None:
        replace_head(network, architecture.head, head)
    elsewhere = renamed(rest, partial(_moved, key_map))
    placed = {f"{architecture.head}.{name}": each for name, each in own.items()}
    laid = _layout(key_map, architecture)(elsewhere)
    fill(network, laid | placed, elsewhere, architecture.layouts)


def _kept(key_map: KeyMap, name: str) -> str | None:
    """Return a name without prefixes, or `None` if it is to be dropped."""
    for prefix in key_map.strip:
        name = name.removeprefix(prefix)
    return None if name.startswith(key_map.drop) else name


def _moved(key_map: KeyMap, name: str) -> str:
    """Return a name with its beginning renamed."""
    olds = (old for old in key_map.rename if name.startswith(old))
    old = next(olds, None)
    return name if old is None else key_map.rename[old] + name.removeprefix(old)


def _layout(key_map: KeyMap, architecture: Published) -> Layout:
    if key_map.layout is None:
        return dict
    if key_map.layout not in architecture.layouts:
        raise ModelUnavailable(
            "The network knows no such layout of weights; mend 'key_map.layout'.",
            pointer="/key_map/layout",
            known=[*sorted(architecture.layouts)],
        )
    return architecture.layouts[key_map.layout]


def _parted(weights: Weights, head: Head | None) -> tuple[Weights, Weights]:
    """Return the weights of all but a replaced head, and those of the head.

    The latter are named by the number of the layer, as in a sequence.
    """
    rest, own = dict(weights), {}
    for number, layer in enumerate(head.layers if head else ()):
        prefix = f"{layer.key}."
        for name in [each for each in rest if layer.key and each.startswith(prefix)]:
            own[f"{number}.{name.removeprefix(prefix)}"] = rest.pop(name)
    return rest, own


def replace_head(network: nn.Module, path: str, head: Head) -> None:
    """Put the layers of `head` where the network's own linear head stands.

    Raises
    ------
    ModelUnavailable
        The network has no linear head to replace.
    """
    old = network.get_submodule(path) if path else None
    if not isinstance(old, nn.Linear):
        raise ModelUnavailable(
            "This network has no linear head that could be replaced; remove 'head'.",
            pointer="/head",
        )
    width, layers = old.in_features, []
    for layer in head.layers:
        layers.append(_layer(layer, width))
        width = layer.features or width
    network.set_submodule(path, nn.Sequential(*layers))


def _layer(layer: HeadLayer, width: int) -> nn.Module:
    """Return a layer that takes `width` numbers."""
    match layer.kind:
        case "linear":
            return nn.Linear(width, layer.features or width)
        case "batch_norm":
            return nn.BatchNorm1d(width)
        case "layer_norm":
            return nn.LayerNorm(width)
        case "relu":
            return nn.ReLU()
        case "gelu":
            return nn.GELU()
        case "tanh":
            return nn.Tanh()


def fill(
    network: nn.Module, weights: Weights, foreign: Weights, layouts: Mapping[str, Layout]
) -> None:
    """Give a network its weights, every tensor by name and shape.

    Parameters
    ----------
    foreign
        The weights before a layout was applied, for advice when they do not fit.

    Raises
    ------
    ModelUnavailable
        A tensor is missing, unknown, of another shape, or holds what is no
        number; the failure names it and tells what to mend.
    """
    given = _completed(network, weights)
    misfits = _misfits(network, given)
    if misfits:
        raise ModelUnavailable(
            "The weights do not fit the network that the manifest names."
            + (_advice(network, given, foreign, layouts) or _usual(misfits)),
            pointer="/architecture",
            **misfits,
        )
    spoiled = [name for name, each in given.items() if not torch.isfinite(each).all()]
    if spoiled:
        raise no_numbers(spoiled)
    network.load_state_dict(given, strict=True)


def no_numbers(tensors: Sequence[str]) -> ModelUnavailable:
    """Return the refusal of weights that hold NaN or infinite values, by the tensors' names."""
    return ModelUnavailable(
        "The weights hold values that are no numbers (NaN or infinite); export them again.",
        pointer="/files",
        tensors=[*tensors[:SHOWN]],
    )


def _completed(network: nn.Module, weights: Weights) -> Weights:
    """Return the weights with what a file may leave out: aliases, and counters of batch norm."""
    given = dict(weights)
    for names in _aliases(network):
        if known := [name for name in names if name in given]:
            given |= {name: given[known[0]] for name in names if name not in given}
    counters = {k: v for k, v in network.state_dict().items() if k.endswith(COUNTER)}
    return {**counters, **given}


def _aliases(network: nn.Module) -> Iterable[list[str]]:
    """Return the names of tensors that have several."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, tensor in network.state_dict(keep_vars=True).items():
        names[id(tensor)].append(name)
    return (each for each in names.values() if len(each) > 1)


def _misfits(network: nn.Module, weights: Weights) -> dict[str, JsonValue]:
    """Return what keeps weights from fitting, a few names of each kind; empty if they fit."""
    own = {name: tuple(each.shape) for name, each in network.state_dict().items()}
    given = {name: tuple(each.shape) for name, each in weights.items()}
    missing = [name for name in own if name not in given]
    unknown = [name for name in given if name not in own]
    shapes = [
        f"{name}: expected {list(own[name])}, found {list(given[name])}"
        for name in own
        if name in given and own[name] != given[name]
    ]
    kinds = {"missing": missing, "unknown": unknown, "shapes": shapes}
    return {kind: [*names[:SHOWN]] for kind, names in kinds.items() if names}


def _advice(
    network: nn.Module, given: Weights, foreign: Weights, layouts: Mapping[str, Layout]
) -> str:
    """Return a sentence on what would make the weights fit better than as given, if any would."""
    own = network.state_dict().keys()
    best, advice = len(own & given.keys()), ""
    prefixes = sorted({f"{name.split('.')[0]}." for name in foreign})
    tries: list[tuple[str, Layout]] = [
        (
            f" More names fit without the prefix '{prefix}'; add it to 'key_map.strip'.",
            _stripper(prefix),
        )
        for prefix in prefixes
    ] + [
        (f" More names fit in the layout '{name}'; set 'key_map.layout'.", layout)
        for name, layout in layouts.items()
    ]
    for sentence, layout in tries:
        try:
            fit = len(own & layout(foreign).keys())
        except (WhylightError, RuntimeError):  # not of this layout
            continue
        if fit > best:
            best, advice = fit, sentence
    return advice


def _usual(misfits: Mapping[str, JsonValue]) -> str:
    """Return a sentence on what usually mends weights of these misfits."""
    if "shapes" in misfits:
        return (
            " Give 'architecture.parameters' the sizes that the weights were trained with; another"
            " head is declared under 'head'."
        )
    if "missing" not in misfits:
        return " Leave unknown tensors out by 'key_map.drop', if the network needs none of them."
    return (
        " Name the network and the parameters that the weights were trained with; 'key_map' maps"
        " names that differ."
    )


def _stripper(prefix: str) -> Layout:
    def strip(weights: Weights) -> Weights:
        return {name.removeprefix(prefix): each for name, each in weights.items()}

    return strip
