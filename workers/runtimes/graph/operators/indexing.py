"""Taking entries out and putting them in."""

from typing import Final

import torch
from torch import Tensor

from workers.runtimes.graph.operators.base import along, axis_of, only, operator, sized, together

SCATTERED: Final = {"none": False, "add": True}
"""Ways to put in, by whether what was there is added to."""


@operator("Gather")
def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Return the entries at some places along an axis, in the places' shape."""
    axis = axis_of(axis, x.dim())
    places = _positive(indices.long(), x.shape[axis])
    found = along(x, axis, places.flatten())
    return found.reshape((*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))


@operator("GatherElements")
def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Return for each place the entry there along an axis."""
    places = _positive(indices.long(), x.shape[axis]).to(x.device)
    return x.gather(axis, places)


@operator("GatherND")
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """Return the slices at tuples of places."""
    batch, depth = indices.shape[:batch_dims], indices.shape[-1]
    rest = x.shape[batch_dims:]
    flat = x.reshape(-1, *rest)
    places = indices.long().reshape(len(flat), -1, depth).to(x.device)
    rows = torch.arange(len(flat), device=x.device)[:, None]
    parts = [_positive(part, rest[k]) for k, part in enumerate(places.unbind(-1))]
    found = flat[(rows, *parts)]
    return found.reshape((*batch, *indices.shape[batch_dims:-1], *rest[depth:]))


@operator("ScatterElements")
def scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    """Return a tensor with entries put in along an axis."""
    only(reduction in SCATTERED, f"'ScatterElements' with reduction '{reduction}'")
    x, updates = together(x, updates)
    places = _positive(indices.long(), x.shape[axis]).to(x.device)
    return (x.scatter_add if SCATTERED[reduction] else x.scatter)(axis, places, updates)


@operator("ScatterND")
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """Return a tensor with slices put in at tuples of places."""
    only(reduction in SCATTERED, f"'ScatterND' with reduction '{reduction}'")
    x, updates, places = together(x, updates, indices.long())
    parts = tuple(_positive(part, x.shape[k]) for k, part in enumerate(places.unbind(-1)))
    return x.index_put(parts, updates, accumulate=SCATTERED[reduction])


@operator("OneHot")
def one_hot(indices: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1) -> Tensor:
    """Return one value at each index and another one elsewhere, along a new axis."""
    length = int(depth)
    sized([*indices.shape, length])
    indices, values = together(indices.long(), values)
    places = torch.arange(length, device=indices.device)
    hot = _positive(indices, length)[..., None] == places
    return torch.where(hot, values[1], values[0]).movedim(-1, axis_of(axis, hot.dim()))


@operator("NonZero")
def non_zero(x: Tensor) -> Tensor:
    """Return where entries are not zero, a row for each axis."""
    return x.nonzero().T


@operator("Trilu")
def trilu(x: Tensor, k: Tensor | None = None, *, upper: int = 1) -> Tensor:
    """Return a triangle of each matrix."""
    diagonal = 0 if k is None else int(k)
    return x.triu(diagonal) if upper else x.tril(diagonal)


def _positive(indices: Tensor, length: int) -> Tensor:
    """Return indices counted from the front."""
    return torch.where(indices < 0, indices + length, indices)
