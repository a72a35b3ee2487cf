"""Non-linearities."""

import torch
from torch import Tensor
from torch.nn import functional

from workers.runtimes.graph.operators.arithmetic import unary
from workers.runtimes.graph.operators.base import operator, together

operator("Relu")(unary(torch.relu))
operator("Sigmoid")(unary(torch.sigmoid))
operator("Tanh")(unary(torch.tanh))
operator("Softplus")(unary(functional.softplus))
operator("Softsign")(unary(functional.softsign))
operator("Mish")(unary(functional.mish))
operator("HardSwish")(unary(functional.hardswish))


@operator("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    """Return `x`, `alpha` times it where it is negative."""
    return functional.leaky_relu(x, alpha)


@operator("PRelu")
def p_relu(x: Tensor, slope: Tensor) -> Tensor:
    """Return `x`, `slope` times it where it is negative."""
    x, slope = together(x, slope)
    return torch.where(x < 0, slope * x, x)


@operator("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Return the exponential linear unit."""
    return functional.elu(x, alpha)


@operator("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Return the continuously differentiable exponential linear unit."""
    return functional.celu(x, alpha)


@operator("Selu")
def selu(x: Tensor, *, alpha: float = 1.6732632, gamma: float = 1.0507010) -> Tensor:
    """Return the scaled exponential linear unit."""
    return gamma * functional.elu(x, alpha)


@operator("ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Return `x` above `alpha`, else 0."""
    return torch.where(x > alpha, x, 0)


@operator("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """Return ``alpha x + beta`` between 0 and 1."""
    return (alpha * x + beta).clamp(0, 1)


@operator("Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """Return the Gaussian error linear unit."""
    return functional.gelu(x, approximate=approximate)


@operator("Clip")
def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Return `x` between two numbers, each of which may be left out."""
    given = {
        name: bound.to(x.device)
        for name, bound in (("min", low), ("max", high))
        if bound is not None
    }
    return torch.clamp(x, **given) if given else x


@operator("Dropout")
def dropout(
    x: Tensor,
    ratio: Tensor | None = None,  # noqa: ARG001 - nothing drops out when a model is used
    training_mode: Tensor | None = None,  # noqa: ARG001
    *,
    seed: int = 0,  # noqa: ARG001
) -> Tensor:
    """Return `x`: nothing drops out when a model is used."""
    return x


@operator("Softmax", since=13)
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """Return the softmax along one axis."""
    return x.softmax(axis)


@operator("LogSoftmax", since=13)
def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """Return the softmax's logarithm along one axis."""
    return x.log_softmax(axis)


@operator("Softmax")
def softmax_1(x: Tensor, *, axis: int = 1) -> Tensor:
    """Return the softmax over all axes from one on, as before opset 13."""
    return x.flatten(axis).softmax(-1).view_as(x)


@operator("LogSoftmax")
def log_softmax_1(x: Tensor, *, axis: int = 1) -> Tensor:
    """Return the softmax's logarithm over all axes from one on, as before opset 13."""
    return x.flatten(axis).log_softmax(-1).view_as(x)
