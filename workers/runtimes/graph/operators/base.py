"""The table of operators: by name, and by the opset since which a function holds.

A function takes a node's inputs in order, `None` for one left out, and its
attributes by the standard's own names. One that asks for ``count`` is told how
many outputs are wanted. Numbers that steer (shapes, axes) stay on the CPU.

References
----------
ONNX, Operator Schemas. https://onnx.ai/onnx/operators/
"""

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

import torch
from torch import Tensor

Function = Callable[..., Tensor | tuple[Tensor, ...]]

LARGEST: Final = 2**28
"""Numbers that an operator may make of a shape alone: 1 GiB of float32."""

_OPERATORS: dict[str, dict[int, Function]] = {}


class UnsupportedGraph(Exception):
    """What a graph asks for and the interpreter lacks, in our words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def operator(name: str, since: int = 1) -> Callable[[Function], Function]:
    """Return a decorator that enters a function as an operator from an opset on."""

    def enter(function: Function) -> Function:
        _OPERATORS.setdefault(name, {})[since] = function
        return function

    return enter


def find(name: str, opset: int) -> Function | None:
    """Return the function of an operator at an opset; `None` if there is none."""
    _discover()
    versions = _OPERATORS.get(name, {})
    fitting = [since for since in versions if since <= opset]
    return versions[max(fitting)] if fitting else None


def known() -> tuple[str, ...]:
    """Return the names of all operators in alphabetical order."""
    _discover()
    return tuple(sorted(_OPERATORS))


@cache
def keywords(function: Function) -> frozenset[str]:
    """Return the attributes that an operator's function takes."""
    parameters = inspect.signature(function).parameters.values()
    return frozenset(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)


@cache
def _discover() -> None:
    folder = importlib.import_module("workers.runtimes.graph.operators")
    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{folder.__name__}.{module.name}")


def together(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return tensors on one device: that of the first which is not on the CPU."""
    device = next((each.device for each in tensors if each.device.type != "cpu"), None)
    return tensors if device is None else tuple(each.to(device) for each in tensors)


def ints(tensor: Tensor | None) -> list[int] | None:
    """Return an input that steers as a list of numbers."""
    return None if tensor is None else [int(each) for each in tensor.flatten().tolist()]


def axis_of(axis: int, rank: int) -> int:
    """Return an axis counted from the front."""
    return axis + rank if axis < 0 else axis


def sized(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape that may be made.

    Raises
    ------
    UnsupportedGraph
        It holds too many numbers, or a negative one.
    """
    if min(shape, default=0) < 0 or math.prod(shape) > LARGEST:
        raise UnsupportedGraph("It makes a tensor of an impossible size.")
    return tuple(shape)


def only(condition: bool, what: str) -> None:
    """Raise `UnsupportedGraph` unless a condition holds; `what` names what is lacking."""
    if not condition:
        raise UnsupportedGraph(f"It uses {what}, which is not interpreted.")


def along(tensor: Tensor, axis: int, index: Tensor) -> Tensor:
    """Return the entries at `index`, one-dimensional, along an axis."""
    return tensor.index_select(axis, index.to(tensor.device))


def numbers(values: Sequence[int], like: Tensor) -> Tensor:
    """Return indices on a tensor's device."""
    return torch.tensor(values, dtype=torch.int64, device=like.device)
