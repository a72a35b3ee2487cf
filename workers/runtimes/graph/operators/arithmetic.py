"""Element by element: arithmetic, comparison, logic, casts."""

import operator as python
from collections.abc import Callable
from functools import reduce
from typing import Final

import torch
from torch import Tensor

from workers.runtimes.graph.operators.base import Function, UnsupportedGraph, operator, together

TYPES: Final = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    12: torch.uint32,
    13: torch.uint64,
    16: torch.bfloat16,
}
"""Tensor types by ONNX's numbers for them (``TensorProto.DataType``)."""


def type_of(number: int) -> torch.dtype:
    """Return torch's type for ONNX's number.

    Raises
    ------
    UnsupportedGraph
        There is none, such as for text.
    """
    if number not in TYPES:
        raise UnsupportedGraph("It uses a type of number that is not interpreted.")
    return TYPES[number]


def unary(function: Callable[..., Tensor]) -> Function:
    """Return an operator of one input and no attribute."""

    def apply(x: Tensor) -> Tensor:
        return function(x)

    return apply


def binary(function: Callable[..., Tensor]) -> Function:
    """Return an operator of two inputs, each stretched to the other's shape."""

    def apply(a: Tensor, b: Tensor) -> Tensor:
        return function(*together(a, b))

    return apply


def variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """Return an operator that folds any number of inputs."""

    def apply(*inputs: Tensor) -> Tensor:
        return reduce(function, together(*inputs))

    return apply


UNARY: Final[dict[str, Callable[..., Tensor]]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,  # both take halves to the even number
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
}
BINARY: Final[dict[str, Callable[..., Tensor]]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}
for _name, _unary in UNARY.items():
    operator(_name)(unary(_unary))
for _name, _binary in BINARY.items():
    operator(_name)(binary(_binary))
operator("Max")(variadic(torch.maximum))
operator("Min")(variadic(torch.minimum))
operator("Sum")(variadic(python.add))


@operator("Mean")
def mean(*inputs: Tensor) -> Tensor:
    """Return the mean of several tensors."""
    total = reduce(python.add, together(*inputs))
    return total / len(inputs)


@operator("Div")
def div(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a / b``; of whole numbers what is left of the point."""
    mode = None if a.is_floating_point() else "trunc"
    return torch.div(*together(a, b), rounding_mode=mode)


@operator("Mod")
def mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """Return the remainder: with the sign of `b`, or with `fmod` that of `a`."""
    a, b = together(a, b)
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@operator("Pow")
def power(x: Tensor, y: Tensor) -> Tensor:
    """Return ``x ** y``, of the type of `x`."""
    base, exponent = together(x, y)
    return torch.pow(base, exponent).to(x.dtype)


@operator("Where")
def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return `x` where the condition holds, else `y`."""
    condition, x, y = together(condition, x, y)
    return torch.where(condition, x, y)


@operator("IsInf")
def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """Tell where values are infinite."""
    return (torch.isposinf(x) & bool(detect_positive)) | (torch.isneginf(x) & bool(detect_negative))


@operator("Cast")
def cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:  # noqa: ARG001 - of 8-bit floats only
    """Return a tensor as another type."""
    return x.to(type_of(to))


@operator("CastLike")
def cast_like(x: Tensor, like: Tensor, *, saturate: int = 1) -> Tensor:  # noqa: ARG001 - likewise
    """Return a tensor as the type of another."""
    return x.to(like.dtype)
