"""Sums, extremes and the like along axes."""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from workers.runtimes.graph.operators.base import axis_of, ints, operator

Reduction = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _prod(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((axis_of(each, x.dim()) for each in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


REDUCTIONS: Final[dict[str, Reduction]] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keep),
    "ReduceProd": _prod,
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
}


def _enter(name: str, function: Reduction) -> None:
    """Enter a reduction in both forms: axes as an attribute, later as an input."""

    def by_attribute(x: Tensor, *, axes: Sequence[int] | None = None, keepdims: int = 1) -> Tensor:
        return function(x, tuple(axes or range(x.dim())), bool(keepdims))

    def by_input(
        x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        wanted = ints(axes)
        if not wanted and noop_with_empty_axes:
            return function(x[..., None], (-1,), False)  # each number on its own
        return function(x, tuple(wanted or range(x.dim())), bool(keepdims))

    operator(name)(by_attribute)
    operator(name, since=13 if name == "ReduceSum" else 18)(by_input)


for _name, _function in REDUCTIONS.items():
    _enter(_name, _function)


@operator("ArgMax")
def arg_max(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Return where the largest lies along an axis."""
    if not select_last_index:
        return x.argmax(axis, keepdim=bool(keepdims))
    return x.shape[axis] - 1 - x.flip(axis).argmax(axis, keepdim=bool(keepdims))


@operator("ArgMin")
def arg_min(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Return where the smallest lies along an axis."""
    found = arg_max(-x, axis=axis, keepdims=keepdims, select_last_index=select_last_index)
    assert isinstance(found, Tensor)  # noqa: S101 - the function above
    return found


@operator("CumSum")
def cum_sum(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Return running sums along an axis."""
    along = int(axis)
    x = x.flip(along) if reverse else x
    total = x.cumsum(along) - (x if exclusive else 0)
    return total.flip(along) if reverse else total


@operator("TopK")
def top_k(
    x: Tensor,
    k: Tensor,
    *,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,  # noqa: A002, ARG001 - the standard's name; sorted serves both
) -> tuple[Tensor, Tensor]:
    """Return the largest or smallest numbers along an axis, and where they lie."""
    values, indices = x.topk(int(k), axis, bool(largest))
    return values, indices
