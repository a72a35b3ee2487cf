"""Convolutions and linear layers in bfloat16, everything else in float32.

Their inputs and weights are rounded to the 8 significant bits of bfloat16, sums
are kept in float32 by the device, and their outputs are widened at once: norms,
shortcuts and activations lose nothing more. The layer that makes the scores
stays in float32, because methods that hide places live by small differences of
scores. So maps stay within the gate where a network wholly in bfloat16 fails it
(docs/performance.md). Weights lie channels last, as these kernels like best.
"""

import copy
from typing import Any, Final

import torch
from torch import Tensor, nn

NARROW: Final = torch.bfloat16

PRODUCTS: Final = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
LAYOUTS: Final = {4: torch.channels_last, 5: torch.channels_last_3d}
"""By number of axes of a weight."""


def narrowed(model: nn.Module, row: Tensor) -> nn.Module:
    """Return a copy of a model that takes its products in bfloat16, all but the last.

    Parameters
    ----------
    row
        A batch to find out which layers run, in which order. The weights of
        others stay: they may be used without their layer.
    """
    network = copy.deepcopy(model).float()
    *ran, last = _order(network, row.float()) or [network]
    for module in set(ran) - {last}:
        module.to(NARROW)
        for each in module.parameters():
            layout = LAYOUTS.get(each.dim(), torch.contiguous_format)
            each.data = each.data.contiguous(memory_format=layout)
        module.register_forward_pre_hook(_narrow)
        module.register_forward_hook(_wide)
    return network


def _order(network: nn.Module, row: Tensor) -> list[nn.Module]:
    """Return the layers that take a product, in the order in which they run."""
    ran: list[nn.Module] = []
    layers = [module for module in network.modules() if isinstance(module, PRODUCTS)]
    hooks = [each.register_forward_hook(lambda layer, *_: ran.append(layer)) for each in layers]
    try:
        with torch.no_grad():
            network(row)
    finally:
        for hook in hooks:
            hook.remove()
    return ran


def _narrow(_layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.to(NARROW) if isinstance(each, Tensor) else each for each in inputs)


def _wide(_layer: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.float()
