"""Products: matrices, convolutions."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from workers.runtimes.graph.operators.base import only, operator, together

CONVOLUTIONS: Final = (functional.conv1d, functional.conv2d, functional.conv3d)
TRANSPOSED: Final = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)
"""By number of spatial axes."""

SAME: Final = ("SAME_UPPER", "SAME_LOWER")


@operator("MatMul")
def mat_mul(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of matrices, stacked as in numpy."""
    return torch.matmul(*together(a, b))


@operator("Gemm")
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 - the standard's name
    transB: int = 0,  # noqa: N803
) -> Tensor:
    """Return ``alpha A B + beta C``."""
    product = (a.T if transA else a) @ (b.T if transB else b)
    product = product if alpha == 1 else alpha * product
    return product if c is None else product + (c if beta == 1 else beta * c)


@operator("Einsum")
def einsum(*inputs: Tensor, equation: str) -> Tensor:
    """Return Einstein's sum."""
    return torch.einsum(equation, *together(*inputs))


@operator("Conv")
def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,  # noqa: ARG001 - the kernel has it
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Return a convolution."""
    axes = _axes(x)
    steps, gaps = strides or (1,) * axes, dilations or (1,) * axes
    before, after = padding(x.shape[2:], w.shape[2:], steps, gaps, auto_pad, pads)
    if before != after:
        x, before = functional.pad(x, edges(before, after)), [0] * axes
    function = CONVOLUTIONS[axes - 1]
    return function(x, w, b, tuple(steps), tuple(before), tuple(gaps), group)


@operator("ConvTranspose")
def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,  # noqa: ARG001 - the kernel has it
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Return a transposed convolution: all of it, then cut or filled at its edges."""
    axes = _axes(x)
    steps, gaps = strides or (1,) * axes, dilations or (1,) * axes
    extra = output_padding or (0,) * axes
    function = TRANSPOSED[axes - 1]
    whole = function(x, w, None, tuple(steps), 0, tuple(extra), group, tuple(gaps))
    if output_shape is None and auto_pad in SAME:
        output_shape = [size * step for size, step in zip(x.shape[2:], steps, strict=True)]
    if output_shape is None:
        before, after = _halves(pads, axes)
    else:
        totals = [a - b for a, b in zip(whole.shape[2:], output_shape, strict=True)]
        before, after = _shared(totals, auto_pad)
    cut = functional.pad(whole, [-each for each in edges(before, after)])
    return cut if b is None else cut + b.view(-1, *(1,) * axes)


def padding(  # noqa: PLR0917 - what a window has along each axis
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    auto_pad: str,
    pads: Sequence[int] | None,
) -> tuple[list[int], list[int]]:
    """Return the cells that are put before and after each spatial axis."""
    if auto_pad not in SAME:
        return _halves(pads if auto_pad == "NOTSET" else None, len(sizes))
    axes = zip(sizes, kernel, strides, dilations, strict=True)
    totals = [
        max((-(-size // step) - 1) * step + (span - 1) * gap + 1 - size, 0)
        for size, span, step, gap in axes
    ]
    return _shared(totals, auto_pad)


def _halves(pads: Sequence[int] | None, axes: int) -> tuple[list[int], list[int]]:
    """Return the cells before and after each axis, as ``pads`` lists them; without it none."""
    given = list(pads or (0,) * 2 * axes)
    return given[:axes], given[axes:]


def _shared(totals: Sequence[int], auto_pad: str) -> tuple[list[int], list[int]]:
    """Return cells shared between the ends of each axis; an odd one goes to the end named."""
    less, more = [each // 2 for each in totals], [each - each // 2 for each in totals]
    return (less, more) if auto_pad == "SAME_UPPER" else (more, less)


def edges(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Return paddings as `functional.pad` takes them: the last axis first."""
    pairs = zip(reversed(before), reversed(after), strict=True)
    return [edge for pair in pairs for edge in pair]


def _axes(x: Tensor) -> int:
    """Return the number of spatial axes."""
    axes = x.dim() - 2
    only(1 <= axes <= len(CONVOLUTIONS), f"a convolution over {axes} axes")
    return axes
