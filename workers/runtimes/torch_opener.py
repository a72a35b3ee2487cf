"""Opens packages of torch: networks of the allow-list, filled with safetensors weights."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from typing_extensions import override

from service.domain.manifest import Manifest
from service.errors.models import ModelUnavailable
from workers.architectures.base import ARCHITECTURES, Architecture
from workers.choices import chosen
from workers.endings import Ending, ending_of
from workers.runtimes.base import RUNTIMES, Opener
from workers.runtimes.members import Combine, Members, mean, mean_sigmoid, mean_softmax
from workers.runtimes.taken import try_network
from workers.runtimes.torch import TorchRuntime
from workers.state_dicts import install
from workers.tabular import Companions
from workers.tokens import Tokens


@RUNTIMES.register("torch")
class TorchOpener(Opener):
    """Networks of the allow-list, with safetensors weights."""

    @override
    def open(
        self,
        manifest: Manifest,
        folder: Path,
        shape: tuple[int, ...],
        device: torch.device,
        fixed_rows: int | None = None,
    ) -> Callable[[], TorchRuntime | Members]:
        """Build the network that the manifest names and fill it with the package's weights."""
        architecture = _architecture(manifest)
        members = manifest.members
        paths = members.weights if members else (manifest.file("weights", "safetensors").path,)
        layers = [layer.name for layer in manifest.layers] or None
        tokens = _tokens(manifest, architecture, shape[1:])
        made = [
            partial(
                _made,
                _filled(manifest, architecture, folder / path),
                shape,
                layers=layers,
                device=device,
                fixed_rows=fixed_rows,
                tokens=tokens,
                variables=len(manifest.variables),
                ending=ending_of(manifest),
            )
            for path in paths
        ]
        return partial(_together, made, _combined(manifest)) if members else made[0]


def _made(
    network: nn.Module,
    shape: tuple[int, ...],
    *,
    layers: Sequence[str] | None,
    device: torch.device,
    ending: Ending | None,
    **options: Any,
) -> TorchRuntime:
    """Return what serves a network, once it has taken a row; options as of `TorchRuntime`.

    `ending` is what is made of outputs that do not count as they are.
    """
    row = try_network(network, shape, device)
    if ending is not None:
        ending.undo(network, row)
    return TorchRuntime(network, shape, layers, device=device, **options)


def _combined(manifest: Manifest) -> Combine:
    """Return how members' answers become one."""
    if manifest.members is None or manifest.members.combine == "logits":
        return mean
    return mean_softmax if manifest.exclusive else mean_sigmoid


def _together(makers: Sequence[Callable[..., TorchRuntime]], combine: Combine) -> Members:
    """Return members of which the first one alone is probed: they differ in weights."""
    first = makers[0]()
    others = [make(layers=first.layers) for make in makers[1:]]
    for each in others:
        each.probed = first.probed
    return Members([first, *others], combine)


def _filled(manifest: Manifest, architecture: Architecture, path: Path) -> nn.Module:
    """Return the network with the weights of a file."""
    try:
        weights = load_file(path)
    except SafetensorError:
        raise ModelUnavailable(
            "The file of weights cannot be read; write it again.", pointer="/files"
        ) from None
    network = _built(architecture)
    install(network, weights, manifest, architecture)
    Companions.of(manifest).join(network)
    return network


def _built(architecture: Architecture) -> nn.Module:
    """Return the network with fresh weights."""
    try:
        return architecture.build()
    except (ValueError, TypeError, LookupError, AssertionError, RuntimeError):
        raise ModelUnavailable(
            "No network can be built with these parameters; some do not go together.",
            pointer="/architecture/parameters",
        ) from None


def _tokens(manifest: Manifest, architecture: Architecture, size: Sequence[int]) -> Tokens | None:
    """Return where tokens lie: as the network knows, or else as the package says."""
    own = architecture.tokens()
    if own is None:
        return Tokens.said_by(manifest, size)
    own.demand_agreement(manifest)
    return own


def _architecture(manifest: Manifest) -> Architecture:
    """Return the network that the manifest names."""
    wanted = manifest.architecture
    if wanted is None:
        raise ModelUnavailable("The manifest names no network.", pointer="/architecture")
    return chosen(ARCHITECTURES, "network", wanted.name, wanted.parameters, "/architecture")
