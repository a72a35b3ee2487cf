"""What is known of a network's modules and functions: which act on windows, and how."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.runtimes.folding import NORMS, layout
from workers.runtimes.incremental.reach import Reach
from workers.runtimes.incremental.windows import Place

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True, eq=False)
class Local:
    """A layer whose output sees a small neighborhood: a convolution or a pooling."""

    reach: Reach
    padding: float
    """Value of cells beyond the grid."""

    on_patch: Callable[[Tensor], Tensor]
    """The layer without its padding."""

    on_whole: Callable[[Tensor], Tensor]
    work: int = 0
    """Multiplications for one cell of the output."""


CONVOLUTIONS: Final[dict[type, Function]] = {
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
}
MAXIMA: Final[dict[type, Function]] = {
    nn.MaxPool1d: functional.max_pool1d,
    nn.MaxPool2d: functional.max_pool2d,
    nn.MaxPool3d: functional.max_pool3d,
}
MEANS: Final[dict[type, Function]] = {
    nn.AvgPool1d: functional.avg_pool1d,
    nn.AvgPool2d: functional.avg_pool2d,
    nn.AvgPool3d: functional.avg_pool3d,
}

PASSING: Final = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
"""Modules that change nothing when nobody trains."""

POINTWISE_MODULES: Final[dict[type, Function]] = {
    nn.ReLU: lambda _module, x: torch.relu(x),
    nn.ReLU6: lambda _module, x: functional.relu6(x),
    nn.LeakyReLU: lambda module, x: functional.leaky_relu(x, module.negative_slope),
    nn.ELU: lambda module, x: functional.elu(x, module.alpha),
    nn.SiLU: lambda _module, x: functional.silu(x),
    nn.Hardswish: lambda _module, x: functional.hardswish(x),
    nn.GELU: lambda module, x: module(x),
    nn.PReLU: lambda module, x: module(x),
    nn.Sigmoid: lambda module, x: module(x),
    nn.Tanh: lambda module, x: module(x),
    nn.Softplus: lambda module, x: module(x),
    **dict.fromkeys(NORMS, lambda module, x: module(x)),
}
"""Modules that act on each cell alone; none of these functions writes into its argument."""

POINTWISE_FUNCTIONS: Final[dict[Any, Function]] = {
    **dict.fromkeys((torch.relu, torch.relu_), torch.relu),
    functional.relu: lambda x, inplace=False: torch.relu(x),  # noqa: ARG005 - torch's own name
    **dict.fromkeys((torch.sigmoid, functional.sigmoid), torch.sigmoid),
    **dict.fromkeys((torch.tanh, functional.tanh), torch.tanh),
    **dict.fromkeys((operator.add, operator.iadd, torch.add), torch.add),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub), torch.sub),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul), torch.mul),
    torch.square: torch.square,
    torch.cat: torch.cat,
}
"""Likewise functions, in place or not; those of two values want them on one grid."""

POINTWISE_METHODS: Final[dict[str, Function]] = {
    **dict.fromkeys(("relu", "relu_"), torch.relu),
    **dict.fromkeys(("sigmoid", "sigmoid_"), torch.sigmoid),
    **dict.fromkeys(("tanh", "tanh_"), torch.tanh),
    **dict.fromkeys(("add", "add_"), torch.add),
    **dict.fromkeys(("sub", "sub_"), torch.sub),
    **dict.fromkeys(("mul", "mul_"), torch.mul),
    "square": torch.square,
}


RECTIFIERS: Final = frozenset((nn.ReLU, torch.relu, torch.relu_, functional.relu, "relu", "relu_"))
"""All ways to write ``max(x, 0)``."""


def local(module: nn.Module) -> Local | None:
    """Return a layer that sees a neighborhood; `None` if it is none."""
    if type(module) in CONVOLUTIONS:
        return _convolution(cast("nn.Conv2d", module))
    if type(module) in MAXIMA:
        return _maximum(cast("nn.MaxPool2d", module))
    if type(module) in MEANS:
        return _mean(cast("nn.AvgPool2d", module))
    return None


def _convolution(module: nn.Conv2d) -> Local | None:
    padding = _padding(module)
    if padding is None:
        return None
    weight = module.weight.detach()
    kernel = weight.to(memory_format=layout(weight.shape))
    offset = None if module.bias is None else module.bias.detach()
    run = CONVOLUTIONS[type(module)]
    stride, dilation, groups = module.stride, module.dilation, module.groups

    return Local(
        Reach(module.kernel_size, module.stride, padding, module.dilation),
        0.0,
        lambda x: run(x, kernel, offset, stride, 0, dilation, groups),
        lambda x: run(x, kernel, offset, stride, padding, dilation, groups),
        work=kernel.numel(),
    )


def _padding(module: nn.Conv2d) -> Place | None:
    """Return the zeros before each axis, or `None` where there is something else."""
    if module.padding_mode != "zeros":
        return None
    if module.padding == "valid":
        return (0,) * len(module.kernel_size)
    if module.padding != "same":
        return cast("Place", module.padding)
    around = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return None if any(each % 2 for each in around) else tuple(each // 2 for each in around)


def _maximum(module: nn.MaxPool2d) -> Local | None:
    if module.return_indices:
        return None
    axes = _axes(module)
    kernel, padding = _each(module.kernel_size, axes), _each(module.padding, axes)
    stride, dilation = _each(module.stride, axes), _each(module.dilation, axes)
    run = MAXIMA[type(module)]
    return Local(
        Reach(kernel, stride, padding, dilation),
        float("-inf"),
        lambda x: run(x, kernel, stride, 0, dilation),
        lambda x: run(x, kernel, stride, padding, dilation, ceil_mode=module.ceil_mode),
    )


def _mean(module: nn.AvgPool2d) -> Local | None:
    axes = _axes(module)
    kernel, stride = _each(module.kernel_size, axes), _each(module.stride, axes)
    if any(_each(module.padding, axes)) or module.ceil_mode:
        return None  # cells beyond the grid do not count there, or not always
    run = MEANS[type(module)]
    return Local(
        Reach(kernel, stride, (0,) * axes, (1,) * axes),
        0.0,
        lambda x: run(x, kernel, stride),
        lambda x: run(x, kernel, stride),
    )


def _axes(module: nn.Module) -> int:
    return int(type(module).__name__[-2])


def _each(value: int | Place, axes: int) -> Place:
    return (value,) * axes if isinstance(value, int) else tuple(value)
