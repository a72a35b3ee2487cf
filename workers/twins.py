"""A network that can be hooked freely: modules of its own over the weights of another."""

import copy
import math
import warnings
from itertools import chain
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from workers.architectures.base import Square
from workers.device import is_out_of_memory
from workers.passes import Scalar
from workers.sameness import same

warnings.filterwarnings("ignore", category=UserWarning, module="captum")  # of its own hooks

Pool = nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d
POOLS: Final = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
"""By number of spatial axes."""


EQUAL: Final = 100
"""Roundings of the largest output by which two runs of the same may differ."""


def twin(model: nn.Module) -> nn.Module:
    """Return a copy of the modules over the very same parameters and buffers.

    Hooks and attributes set on it, and whatever is left of them after a
    failure, do not reach `model`; no weight takes memory twice.
    """
    shared = {id(each): each for each in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)


def copies(model: nn.Module, row: Tensor) -> bool:
    """Tell whether a copy of a model answers as the model does: tried, never believed.

    A hook or a function that holds the model itself goes on to write there when it
    is copied, and the copy answers with what the model kept of another image.

    Parameters
    ----------
    row
        A batch of one, shape ``(1, C, *spatial)``.
    """
    other = 3 - 2 * row
    try:
        with torch.no_grad():
            model(row)
            copied = twin(model)
            wanted, found = model(other), copied(other)
    except Exception as error:  # a model is foreign code
        if is_out_of_memory(error):
            raise
        return False
    return same(found, wanted, EQUAL * torch.finfo(wanted.dtype).eps)


def separated(network: nn.Module) -> nn.Module:
    """Change a twin so that captum's DeepLIFT is right on it, and return it.

    captum hooks tensors. Where one non-linearity follows another (a rectifier,
    then max-pooling), or shares its input with a shortcut, both hooks would
    stand on one tensor: one then sees gradients from before the other's rule,
    or from other branches. So every module gets an input tensor of its own.

    It keeps one contribution for each place in front of max-pooling, the last
    one. So overlapping windows are laid out side by side. And it has no rule
    for squares; they bring their own.
    """
    for parent in tuple(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, POOLS) and _overlaps(child):
                parent.add_module(name, _SideBySide(child))
            elif isinstance(child, Square):
                parent.add_module(name, _RescaledSquare())
    for module in network.modules():
        module.register_forward_pre_hook(_cloned)
    return network


class _SideBySide(nn.Module):
    """Max-pooling over windows that overlap, as one over windows that do not."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        axes = POOLS.index(type(pool)) + 1
        self.kernel, self.stride, self.padding = (
            _each(value, axes) for value in (pool.kernel_size, pool.stride, pool.padding)
        )
        self.peaks = nn.MaxPool1d(math.prod(self.kernel))

    @override
    def forward(self, rows: Tensor) -> Tensor:
        edges = [edge for edge in reversed(self.padding) for _ in range(2)]
        windows = functional.pad(rows, edges, value=torch.finfo(rows.dtype).min)
        for axis, (size, step) in enumerate(zip(self.kernel, self.stride, strict=True), 2):
            windows = windows.unfold(axis, size, step)
        grid = windows.shape[: rows.dim()]
        peaks: Tensor = self.peaks(windows.reshape(len(rows), -1, math.prod(self.kernel)))
        return peaks.reshape(grid)


class _RescaledSquare(nn.Module):
    """The square, with the slope between two rows for its gradient."""

    @override
    def forward(self, rows: Tensor) -> Tensor:
        squares: Tensor = _Slope.apply(rows)  # type: ignore[no-untyped-call] # torch's
        return squares


class _Slope(torch.autograd.Function):
    """Squares of images followed by as many references, as captum stacks them."""

    @staticmethod
    @override
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return rows * rows

    @staticmethod
    @override
    def backward(ctx: Any, given: Tensor) -> Tensor:
        images, references = ctx.saved_tensors[0].chunk(2)
        slopes = images + references  # (z^2 - z_b^2) / (z - z_b), also where they are equal
        led: Tensor = given * slopes.repeat(2, *(1,) * (slopes.dim() - 1))
        return led


def _overlaps(pool: Pool) -> bool:
    """Tell whether windows overlap and are no more than that."""
    axes = POOLS.index(type(pool)) + 1
    sizes, steps = _each(pool.kernel_size, axes), _each(pool.stride, axes)
    plain = not pool.ceil_mode and set(_each(pool.dilation, axes)) == {1}
    return plain and any(size > step for size, step in zip(sizes, steps, strict=True))


def _each(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


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
