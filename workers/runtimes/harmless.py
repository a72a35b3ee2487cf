"""Which operations of a pass cannot be a ReLU, nor a part of one.

A ReLU can be written in countless ways, so those that are harmless are listed,
by the names of autograd's nodes, and not those that are not.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.graph import Node

SLIGHT: Final = 1e-3
"""By how much a bound may cut values off and still count as a guard against zero."""

NEARLY: Final = 1e-6
"""Slope or bend below zero under which nobody can tell an activation from a ReLU."""


def named(names: str) -> frozenset[str]:
    """Return names that are written one after another."""
    return frozenset(names.split())


VIEWS: Final = named(
    """Alias AsStrided Clone CopyBackwards Diagonal Expand Flip Permute Repeat ReshapeAlias Roll
    Select Slice Split SplitWithSizes Squeeze T ToCopy Transpose Unbind Unfold UnsafeSplit
    UnsafeView Unsqueeze View"""
)
"""What puts values elsewhere and leaves them as they are."""

KEPT: Final = VIEWS | named(
    """AccumulateGrad Add Addbmm Addmm Addmv Addr Sub Rsub Neg Sum Mean Cumsum NanToNum Var VarMean
    Std StdMean Cat Stack Index IndexSelect ConstantPadNd Tril Triu Dot Mv Mm Bmm Baddbmm Trilinear
    Convolution MkldnnConvolution AvgPool2D AvgPool3D AdaptiveAvgPool2D AdaptiveAvgPool3D
    ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D
    ReplicationPad3D PixelShuffle PixelUnshuffle ChannelShuffle Im2Col Col2Im MaxUnpool2D
    MaxUnpool3D UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleNearestExact1D
    UpsampleNearestExact2D UpsampleNearestExact3D UpsampleLinear1D UpsampleBilinear2D
    UpsampleBilinear2DAa UpsampleBicubic2D UpsampleBicubic2DAa UpsampleTrilinear3D GridSampler2D
    GridSampler3D NativeBatchNorm CudnnBatchNorm MiopenBatchNorm NativeLayerNorm NativeGroupNorm
    FusedRmsNorm Exp Expm1 Log Log1P Logsumexp Softmax SafeSoftmax LogSoftmax Reciprocal Prod
    Sigmoid LogSigmoid Tanh Erf Gelu Silu Mish Glu Softplus Hardswish Hardsigmoid Atan Sin Cos
    MkldnnRnnLayer ThnnFusedLstmCell ThnnFusedGruCell ScaledDotProductFlashAttention
    ScaledDotProductFlashAttentionForCpu ScaledDotProductEfficientAttention
    ScaledDotProductCudnnAttention ScaledDotProductAttentionMath"""
)
"""What is linear or smooth: the rules lead through it by its own derivative."""

POOLED: Final = named(
    """Mean Sum Var Std LinalgVectorNorm AvgPool2D AvgPool3D AdaptiveAvgPool2D
    AdaptiveAvgPool3D"""
)
"""What makes one value of many."""

LED: Final = VIEWS | {"Add", "Mul", "Clamp", "ClampMin"}
"""What stands between a mean of squares and its root, in a norm that is written out."""


def harmless(node: Node) -> bool:
    """Tell whether the operation of a node, which is no ReLU, cannot be a part of one."""
    name = operation(node)
    return name in KEPT or (name in CONDITIONS and CONDITIONS[name](node))


def operation(node: Node) -> str:
    """Return the name of a node's operation."""
    return re.sub(r"Backward\d*$", "", node.name()).rpartition("::")[2]


def is_mask(factor: Tensor | None) -> bool:
    """Tell whether all of a factor has one magnitude or is zero, but not all of it is the same."""
    if factor is None or factor.dim() == 0:
        return False
    sizes = factor if factor.dtype is torch.bool else factor.abs()
    same = (sizes == 0) | (sizes == sizes.max())
    return bool(same.all()) and not bool((factor == factor.flatten()[0]).all())


def _divides(node: Any) -> bool:
    """Tell whether a division keeps all values: by infinity it would be a mask."""
    other: Tensor | None = node._saved_other  # noqa: SLF001 - autograd's way to tell
    return other is None or not (is_mask(other) or bool(other.isinf().any()))


def _bounds(node: Any) -> bool:
    """Tell whether bounds lie on both sides of zero, or cut off next to nothing."""
    low, high = (
        getattr(node, f"_saved_{end}", getattr(node, f"_saved_{end}_val", None))
        for end in ("min", "max")
    )
    if low is not None and high is not None and _all(low < 0) and _all(high > 0):
        return True
    values: Tensor = node._saved_self  # noqa: SLF001
    cut = low is not None and _any(values < low - SLIGHT)
    return not (cut or (high is not None and _any(values > high + SLIGHT)))


def _slopes(node: Any) -> bool:
    """Tell whether what lies below zero is led on, and not as a magnitude would be."""
    if "Prelu" in node.name():
        return _all(node._saved_weight.abs() > NEARLY)  # noqa: SLF001
    if "LeakyRelu" in node.name():
        return bool(node._saved_negative_slope > NEARLY)  # noqa: SLF001
    return bool(node._saved_alpha > NEARLY)  # noqa: SLF001


def _powers(node: Any) -> bool:
    """Tell whether a power is no root, which of a square is a magnitude; but for a norm's."""
    exponent = getattr(node, "_saved_exponent", 0)
    return _all(exponent >= 1) or _roots(node)


def _roots(node: Node) -> bool:
    """Tell whether a root is that of a norm: of a mean or sum of several values."""
    return all(operation(end) in POOLED and _several(end) for end in _above(node, LED))


def _several(node: Any) -> bool:
    """Tell whether a mean, sum or norm is of more than one value."""
    sizes = getattr(node, "_saved_self_sym_sizes", None)
    if sizes is None:
        sizes = node._saved_self.shape  # noqa: SLF001
    # autograd tells axes from the end as unsigned numbers
    axes = [a - 2**64 if a >= 2**63 else a for a in getattr(node, "_saved_dim", None) or ()]
    return bool(math.prod(sizes[axis] for axis in axes or range(len(sizes))) > 1)


def _chooses(node: Any) -> bool:
    """Tell whether what is chosen from is the model's own values, and no constant beside them."""
    if not any(_beside_constants(end) for end in _above(node, VIEWS)):
        return True
    values: Tensor | None = getattr(node, "_saved_self", None)
    return values is not None and _all((values >= 0) | values.isneginf())


def _beside_constants(node: Node) -> bool:
    """Tell whether an operation puts values next to constants, or next to their own opposite."""
    if operation(node) == "ConstantPadNd":
        return True
    parts = [part for part, _ in node.next_functions]
    return operation(node) in {"Cat", "Stack"} and any(
        part is None or operation(part) == "Neg" for part in parts
    )


def _above(node: Node, through: frozenset[str]) -> Iterator[Node]:
    """Yield what a node's values come from, through operations of some names."""
    waiting = [part for part, _ in node.next_functions]
    while waiting:
        each = waiting.pop()
        if each is not None and operation(each) in through:
            waiting += [part for part, _ in each.next_functions]
        elif each is not None:
            yield each


def _all(told: Any) -> bool:
    return bool(told.all()) if isinstance(told, Tensor) else bool(told)


def _any(told: Any) -> bool:
    return bool(told.any()) if isinstance(told, Tensor) else bool(told)


CONDITIONS: Final[dict[str, Callable[[Node], bool]]] = {
    "Mul": lambda _: True,  # the caller looks for masks among the factors of all products
    "Div": _divides,
    "CudnnRnn": lambda node: getattr(node, "_saved_mode", 0) > 1,
    **dict.fromkeys(("Clamp", "ClampMin", "ClampMax", "Hardtanh"), _bounds),
    **dict.fromkeys(("LeakyRelu", "PreluKernel", "Elu", "Celu"), _slopes),
    "Pow": _powers,
    **dict.fromkeys(("Sqrt", "Rsqrt"), _roots),
    "LinalgVectorNorm": _several,
    **dict.fromkeys(
        named(
            """MaxPool2DWithIndices MaxPool3DWithIndices MkldnnMaxPool2D MkldnnMaxPool3D
        AdaptiveMaxPool2D AdaptiveMaxPool3D Amax Amin Max Min Sort Topk Kthvalue Median
        Gather"""
        ),
        _chooses,
    ),
}
"""What is harmless where this is so."""
