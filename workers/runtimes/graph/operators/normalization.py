"""Normalization."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from workers.runtimes.graph.operators.base import axis_of, only, operator


@operator("BatchNormalization")
def batch_normalization(
    x: Tensor,
    scale: Tensor,
    b: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,  # noqa: ARG001 - of training only
    training_mode: int = 0,
    count: int = 1,
) -> Tensor:
    """Return `x` normalized by the statistics of the training data."""
    only(not training_mode and count == 1, "batch normalization in training mode")
    return functional.batch_norm(x, mean, var, scale, b, eps=epsilon)


@operator("InstanceNormalization")
def instance_normalization(x: Tensor, scale: Tensor, b: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """Return `x` normalized within each channel of each row."""
    normal, _, _ = _normal(x, tuple(range(2, x.dim())), epsilon)
    return normal * _channels(scale, x) + _channels(b, x)


@operator("LayerNormalization")
def layer_normalization(
    x: Tensor,
    scale: Tensor,
    b: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,  # noqa: ARG001 - the precision within, which is that of `x` here
    count: int = 1,
) -> Tensor | tuple[Tensor, ...]:
    """Return `x` normalized over all axes from one on; then mean and inverse deviation."""
    axes = tuple(range(axis_of(axis, x.dim()), x.dim()))
    normal, mean, inverse = _normal(x, axes, epsilon)
    y = normal * scale if b is None else normal * scale + b
    return y if count == 1 else (y, mean, inverse)[:count]


@operator("GroupNormalization", since=18)
def group_normalization_18(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5
) -> Tensor:
    """Return `x` normalized within groups of channels, with a scale for each group."""
    each = x.shape[1] // num_groups
    scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return functional.group_norm(x, num_groups, scale, bias, epsilon)


@operator("GroupNormalization", since=21)
def group_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,  # noqa: ARG001 - the precision within, which is that of `x` here
) -> Tensor:
    """Return `x` normalized within groups of channels, with a scale for each channel."""
    return functional.group_norm(x, num_groups, scale, bias, epsilon)


@operator("LRN")
def lrn(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    """Return `x` over the strength of the channels beside each one."""
    before, after = (size - 1) // 2, math.ceil((size - 1) / 2)
    squares = functional.pad(x.square().movedim(1, -1), [before, after])
    total = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return x / (bias + alpha / size * total) ** beta


@operator("LpNormalization")
def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """Return `x` over its norm along an axis; 0 where that is 0."""
    return functional.normalize(x, p=float(p), dim=axis, eps=torch.finfo(x.dtype).tiny)


def _normal(x: Tensor, axes: tuple[int, ...], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return `x` normalized over some axes, its mean, and what it was multiplied by."""
    mean = x.mean(axes, keepdim=True)
    apart = x - mean
    inverse = (apart.square().mean(axes, keepdim=True) + epsilon).rsqrt()
    return apart * inverse, mean, inverse


def _channels(values: Tensor, x: Tensor) -> Tensor:
    """Return a number for each channel so that it stretches over `x`."""
    return values.view(-1, *(1,) * (x.dim() - 2))
