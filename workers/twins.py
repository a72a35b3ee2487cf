"""A network that can be hooked freely: modules of its own over the weights of another."""

import copy
import warnings
from itertools import chain
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from workers.passes import Scalar

warnings.filterwarnings("ignore", category=UserWarning, module="captum")  # of its own hooks


def twin(model: nn.Module) -> nn.Module:
    """Return a copy of the modules over the very same parameters and buffers.

    Hooks and attributes set on it, and whatever is left of them after a
    failure, do not reach `model`; no weight takes memory twice.
    """
    shared = {id(each): each for each in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)


def separated(network: nn.Module) -> nn.Module:
    """Give every module an input tensor of its own, and return the network.

    captum's DeepLIFT hooks tensors. Where one non-linearity follows another
    (a rectifier, then max-pooling), or shares its input with a shortcut, both
    hooks would stand on one tensor: one then sees gradients from before the
    other's rule, or from other branches, and contributions do not add up.
    """
    for module in network.modules():
        module.register_forward_pre_hook(_cloned)
    return network


def _cloned(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.clone() if isinstance(each, Tensor) else each for each in inputs)


class Scored(nn.Module):
    """A network that puts out one number to a row, the score to be shared out.

    Parameters
    ----------
    network
        Maps ``(N, C, *spatial)`` to outputs ``(N, ...)``.
    score
        Reduces outputs to ``(N,)``.
    """

    def __init__(self, network: nn.Module, score: Scalar) -> None:
        super().__init__()
        self.network = network
        self.score = score

    @override
    def forward(self, rows: Tensor) -> Tensor:
        return self.score(self.network(rows))
