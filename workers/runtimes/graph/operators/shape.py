"""Shapes: asking, changing, joining, cutting."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from workers.runtimes.graph.operators.arithmetic import unary
from workers.runtimes.graph.operators.base import (
    along,
    axis_of,
    ints,
    numbers,
    only,
    operator,
    sized,
    together,
)

operator("Identity")(unary(lambda x: x))


@operator("Constant")
def constant(
    *,
    value: Tensor | None = None,
    value_float: float | None = None,
    value_floats: Sequence[float] | None = None,
    value_int: int | None = None,
    value_ints: Sequence[int] | None = None,
) -> Tensor:
    """Return the constant that the node holds."""
    if value is not None:
        return value
    real = value_float if value_float is not None else value_floats
    if real is not None:
        return torch.tensor(real, dtype=torch.float32)
    return torch.tensor(value_int if value_int is not None else value_ints, dtype=torch.int64)


@operator("ConstantOfShape")
def constant_of_shape(shape: Tensor, *, value: Tensor | None = None) -> Tensor:
    """Return one number everywhere."""
    filling = torch.zeros(1) if value is None else value
    return filling.reshape(()).repeat(sized(ints(shape) or ()))


@operator("Shape")
def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """Return the shape, or a part of it."""
    return torch.tensor(x.shape[start:end], dtype=torch.int64)


@operator("Size")
def size(x: Tensor) -> Tensor:
    """Return how many numbers a tensor holds."""
    return torch.tensor(x.numel())


@operator("Range")
def range_(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Return numbers at equal distance."""
    first, last, step = start.item(), limit.item(), delta.item()
    sized([max(math.ceil((last - first) / step), 0)])
    return torch.arange(first, last, step, dtype=start.dtype)


@operator("Reshape")
def reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    """Return a tensor in another shape; 0 keeps an axis unless zeros are allowed."""
    wanted = ints(shape) or []
    if not allowzero:
        wanted = [x.shape[k] if size == 0 else size for k, size in enumerate(wanted)]
    return x.reshape(wanted)


@operator("Flatten")
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """Return a matrix: the axes before one, and those from it on."""
    return x.reshape(math.prod(x.shape[: axis_of(axis, x.dim())]), -1)


@operator("Transpose")
def transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    """Return a tensor with its axes in another order, reversed if none is given."""
    return x.permute(tuple(perm) if perm is not None else tuple(reversed(range(x.dim()))))


@operator("Squeeze")
def squeeze_1(x: Tensor, *, axes: Sequence[int] | None = None) -> Tensor:
    """Return a tensor without axes of length 1."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@operator("Squeeze", since=13)
def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Return a tensor without axes of length 1."""
    wanted = ints(axes)
    return x.squeeze() if wanted is None else x.squeeze(tuple(wanted))


@operator("Unsqueeze")
def unsqueeze_1(x: Tensor, *, axes: Sequence[int]) -> Tensor:
    """Return a tensor with more axes, of length 1."""
    rank = x.dim() + len(axes)
    for axis in sorted(axis_of(each, rank) for each in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Unsqueeze", since=13)
def unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    """Return a tensor with more axes, of length 1."""
    return unsqueeze_1(x, axes=ints(axes))  # type: ignore[return-value]


@operator("Expand")
def expand(x: Tensor, shape: Tensor) -> Tensor:
    """Return a tensor stretched to a shape, or the shape stretched to it."""
    return x.expand(sized(torch.broadcast_shapes(x.shape, tuple(ints(shape) or ()))))


@operator("Tile")
def tile(x: Tensor, repeats: Tensor) -> Tensor:
    """Return a tensor, repeated along each axis."""
    times = ints(repeats) or []
    sized([size * count for size, count in zip(x.shape, times, strict=True)])
    return x.repeat(times)


@operator("Concat")
def concat(*inputs: Tensor, axis: int) -> Tensor:
    """Return tensors one after the other along an axis."""
    return torch.cat(together(*inputs), axis)


@operator("Split")
def split_1(
    x: Tensor, *, axis: int = 0, split: Sequence[int] | None = None, count: int = 1
) -> tuple[Tensor, ...]:
    """Return the parts of a tensor along an axis, equal ones if no lengths are given."""
    lengths = list(split) if split is not None else _equal(x.shape[axis], count)
    return tuple(x.split(lengths, axis))


@operator("Split", since=13)
def split(
    x: Tensor,
    split: Tensor | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    count: int = 1,
) -> tuple[Tensor, ...]:
    """Return the parts of a tensor along an axis, equal ones if no lengths are given."""
    lengths = ints(split) or _equal(x.shape[axis], num_outputs or count)
    return tuple(x.split(lengths, axis))


@operator("Slice")
def slice_(
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Return every so many entries between two along some axes."""
    begin, end = ints(starts) or [], ints(ends) or []
    where, step = ints(axes) or range(len(begin)), ints(steps) or [1] * len(begin)
    for first, last, axis, each in zip(begin, end, where, step, strict=True):
        length = x.shape[axis]
        cut = range(*slice(first, last, each).indices(length))
        if each == 1:
            x = x.narrow(axis, min(cut.start, length), len(cut))
        else:
            x = along(x, axis, numbers(cut, x))
    return x


@operator("Pad")
def pad(
    x: Tensor,
    pads: Tensor,
    constant_value: Tensor | None = None,
    axes: Tensor | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    """Return a tensor with more, or with negative pads fewer, entries at the ends of axes."""
    edges = ints(pads) or []
    where = [axis_of(each, x.dim()) for each in ints(axes) or range(len(edges) // 2)]
    ends = {axis: (edges[k], edges[k + len(where)]) for k, axis in enumerate(where)}
    lengths = [sum(ends.get(axis, (0, 0))) + size for axis, size in enumerate(x.shape)]
    sized(lengths)
    if mode == "constant":
        value = 0 if constant_value is None else constant_value.item()
        flat = [edge for axis in reversed(range(x.dim())) for edge in ends.get(axis, (0, 0))]
        return torch.nn.functional.pad(x, flat, value=value)
    for axis, (before, after) in ends.items():
        if before or after:
            x = along(x, axis, _beyond(x.shape[axis], before, after, mode))
    return x


def _beyond(length: int, before: int, after: int, mode: str) -> Tensor:
    """Return which entries stand at, before and behind an axis."""
    index = torch.arange(-before, length + after)
    if mode == "edge":
        return index.clamp(0, length - 1)
    if mode == "wrap":
        return index % length
    only(mode == "reflect", "a mode of padding")
    period = max(2 * (length - 1), 1)
    index = index % period
    return torch.minimum(index, (period - index) % max(period, 1)) if length > 1 else index * 0


def _equal(length: int, parts: int) -> list[int]:
    """Return lengths of equal parts; the last may be shorter."""
    each = -(-length // parts)
    return [max(min(each, length - each * k), 0) for k in range(parts)]
