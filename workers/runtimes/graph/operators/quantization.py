"""Quantization, as numbers that are whole but not of an integer type.

So a gradient passes: straight through the rounding, and not where a number was
cut off at the end of the range. Networks that were quantized with their
rectifiers hold them only in these ranges.

References
----------
Bengio, Leonard, Courville (2013). Estimating or propagating gradients through
stochastic neurons for conditional computation. arXiv:1308.3432.
"""

import torch
from torch import Tensor

from workers.runtimes.graph.operators.arithmetic import type_of
from workers.runtimes.graph.operators.base import only, operator, together


@operator("QuantizeLinear")
def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    saturate: int = 1,  # noqa: ARG001 - of 8-bit floats only
) -> Tensor:
    """Return the steps of `scale` in `x`, rounded and kept within the type's range."""
    only(not block_size, "quantization by blocks")
    kind = zero.dtype if zero is not None else type_of(output_dtype) if output_dtype else None
    kind = torch.uint8 if kind is None else kind
    only(not kind.is_floating_point, "quantization to 8-bit floats")
    x, scale = together(x, scale)
    steps = x / _spread(scale, x, axis)
    ends = torch.iinfo(kind)
    rounded = steps + (steps.round() - steps).detach()  # halves go to the even number
    shift = 0 if zero is None else _spread(zero.to(x), x, axis)
    return (rounded + shift).clamp(ends.min, ends.max)


@operator("DequantizeLinear")
def dequantize_linear(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
) -> Tensor:
    """Return steps of `scale` as a number."""
    only(not block_size, "quantization by blocks")
    x, scale = together(x, scale)
    steps = x.to(scale.dtype)
    steps = steps if zero is None else steps - _spread(zero.to(steps), x, axis)
    return steps * _spread(scale, x, axis)


def _spread(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """Return a number for all, or one for each place along an axis, so that it fits `x`."""
    if values.numel() == 1:
        return values.reshape(())
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.view(shape)
