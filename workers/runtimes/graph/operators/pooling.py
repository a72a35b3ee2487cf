"""Pooling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from workers.runtimes.graph.operators.base import only, operator
from workers.runtimes.graph.operators.linear import SAME, edges, padding

LARGEST_OF: Final = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
MEAN_OF: Final = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
"""By number of spatial axes."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Where windows lie along each spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: list[int]
    after: list[int]
    beyond: list[int]
    """Cells behind the padding that the last window reaches into."""

    @property
    def plain(self) -> bool:
        """Whether torch's own padding gives the same."""
        half = all(2 * pad <= size for pad, size in zip(self.before, self.kernel, strict=True))
        return self.before == self.after and half and not any(self.beyond)


def windows(  # noqa: PLR0917 - the standard's attributes
    x: Tensor,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    auto_pad: str,
    pads: Sequence[int] | None,
    ceil_mode: int,
) -> Windows:
    """Return where windows lie; with `ceil_mode` the last one may reach beyond the padding."""
    axes = len(kernel_shape)
    only(1 <= axes <= len(MEAN_OF) and x.dim() == axes + 2, f"pooling over {axes} axes")
    steps, gaps = tuple(strides or (1,) * axes), tuple(dilations or (1,) * axes)
    before, after = padding(x.shape[2:], kernel_shape, steps, gaps, auto_pad, pads)
    beyond = [0] * axes
    if ceil_mode and auto_pad not in SAME:
        for k, size in enumerate(x.shape[2:]):
            span = (kernel_shape[k] - 1) * gaps[k] + 1
            reach = size + before[k] + after[k] - span
            steps_up = math.ceil(reach / steps[k])
            if steps_up * steps[k] >= size + before[k]:  # it would begin behind the image
                steps_up -= 1
            beyond[k] = max(steps_up * steps[k] - reach, 0)
    return Windows(tuple(kernel_shape), steps, gaps, before, after, beyond)


@operator("MaxPool")
def max_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,  # noqa: ARG001 - of the indices only
    strides: Sequence[int] | None = None,
    count: int = 1,
) -> Tensor:
    """Return the largest of each window."""
    only(count == 1, "the indices of max-pooling")
    found = windows(x, kernel_shape, strides, dilations, auto_pad, pads, ceil_mode)
    function = LARGEST_OF[len(kernel_shape) - 1]
    inner: tuple[int, ...] = tuple(found.before)
    if not found.plain:
        after = [a + b for a, b in zip(found.after, found.beyond, strict=True)]
        x = functional.pad(x, edges(found.before, after), value=-math.inf)
        inner = (0,) * len(inner)
    pooled: Tensor = function(x, found.kernel, found.strides, inner, found.dilations)
    return pooled


@operator("AveragePool")
def average_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Return the mean of each window; what lies beyond the padding is never counted."""
    only(set(dilations or (1,)) == {1}, "average pooling with dilations")
    found = windows(x, kernel_shape, strides, dilations, auto_pad, pads, ceil_mode)
    function = MEAN_OF[len(kernel_shape) - 1]
    if found.plain:
        return function(
            x,
            found.kernel,
            found.strides,
            tuple(found.before),
            count_include_pad=bool(count_include_pad),
        )
    counted = torch.ones_like(x[:1, :1])
    around = edges(found.before, found.after)
    x = functional.pad(x, around)
    counted = functional.pad(counted, around, value=float(bool(count_include_pad)))
    last = edges([0] * len(found.beyond), found.beyond)
    total, share = (
        function(functional.pad(each, last), found.kernel, found.strides) for each in (x, counted)
    )
    return total / share


@operator("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    """Return the mean of each channel."""
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    """Return the largest of each channel."""
    return x.amax(tuple(range(2, x.dim())), keepdim=True)
