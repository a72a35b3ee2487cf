"""Windows of one size on a lattice: where they stand, and which are worth trying."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import torch
from torch import Tensor

from workers.rows import Box

COARSE: Final = 8
"""Places of a lattice to one of its coarsest part, where all are asked for; about that many."""

SMALLEST: Final = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows at multiples of a stride, until one reaches the far edge along each axis."""

    edge: int
    """In pixels; the last window of an axis is cut off at the image's edge."""

    stride: int
    """In pixels."""

    sizes: tuple[int, ...]
    """Of the image along each axis, in pixels."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Windows along each axis."""
        return tuple(1 + max(0, math.ceil((n - self.edge) / self.stride)) for n in self.sizes)

    @property
    def count(self) -> int:
        """Number of windows."""
        return math.prod(self.shape)

    def boxes(self) -> tuple[Box, ...]:
        """Return all windows in row-major order."""
        return tuple(product(*(self._spans(*axis) for axis in self._axes())))

    def averaged(self, falls: Tensor, cell: int) -> Tensor:
        """Return the mean over the windows that cover each cell.

        Parameters
        ----------
        falls
            A number for each window, shape ``(K, *shape)``.
        cell
            Edge of a cell in pixels; divides edge and stride.

        Returns
        -------
        Tensor
            Shape ``(K, *grid)``.
        """
        for size, count in self._axes():
            covers = torch.zeros(math.ceil(size / cell), count, dtype=falls.dtype)
            for at, span in enumerate(self._spans(size, count)):
                covers[span.start // cell : math.ceil(span.stop / cell), at] = 1
            means = (covers / covers.sum(1, keepdim=True)).to(falls.device)
            falls = torch.tensordot(falls, means, dims=([1], [1]))
        return falls

    def _axes(self) -> Iterator[tuple[int, int]]:
        return zip(self.sizes, self.shape, strict=True)

    def _spans(self, size: int, count: int) -> Iterator[slice]:
        """Iterate over the windows along one axis of `size` pixels."""
        for at in range(count):
            start = at * self.stride
            yield slice(start, min(start + self.edge, size))


class Search:
    """Numbers on a lattice, found for some of its places and interpolated between them.

    It starts on a coarse part of the lattice and halves the distance in rounds.
    In each, the places are asked for at which the roots of the numbers known so
    far differ most between neighbors; the last round takes what is left of the
    budget, the others half. Without a budget every place is asked for: which round
    it is in depends on nothing that was learned.

    Parameters
    ----------
    shape
        Of the lattice.
    targets
        Numbers at each place.
    budget
        Most places that are asked for, all if not given; the lattice's corners are in
        any case.
    """

    def __init__(self, shape: Sequence[int], targets: int, budget: int | None = None) -> None:
        self.shape = tuple(shape)
        self.tried = 0
        self._budget = budget
        most = math.prod(self.shape) // COARSE if budget is None else budget // 2
        self._step = _first(self.shape, most)
        self._known = torch.zeros(self.shape, dtype=torch.bool)
        self._values = torch.zeros(targets, *self.shape, dtype=torch.float64)
        self._knots = _knots(self.shape, self._step)

    def rounds(self) -> Iterator[Tensor]:
        """Iterate over flat places, each time to be answered by `learn`; some may be empty."""
        yield self._grid(self._knots).flatten()
        while self._step > 1:
            self._step //= 2
            finer = _knots(self.shape, self._step)
            self._settle(finer)
            yield self._next()

    def learn(self, places: Tensor, values: Tensor) -> None:
        """Take in the numbers ``(places, K)`` at flat places."""
        self._values.flatten(1)[:, places] = values.T
        self._known.flatten()[places] = True
        self.tried += len(places)

    def values(self) -> Tensor:
        """Return a number for every place, shape ``(K, *shape)``."""
        self._settle(_knots(self.shape, 1))
        return self._values

    def _settle(self, finer: list[Tensor]) -> None:
        """Interpolate what is not known at finer knots between the knots so far."""
        at = self._grid(finer)
        between = self._values.flatten(1)[:, self._grid(self._knots)]
        for old, new in zip(self._knots, finer, strict=True):
            between = torch.tensordot(between, _interpolation(old, new), dims=([1], [1]))
        flat = self._values.flatten(1)
        flat[:, at] = torch.where(self._known.flatten()[at], flat[:, at], between)
        self._knots = finer

    def _next(self) -> Tensor:
        """Return the flat places of the round that begins."""
        if self._budget is None:
            at = self._grid(self._knots).flatten()
            return at[~self._known.flatten()[at]]
        left = self._budget - self.tried
        return self._steepest(left if self._step == 1 else left // 2)

    def _steepest(self, count: int) -> Tensor:
        """Return the flat places of `count` unknown knots where the numbers change most."""
        at = self._grid(self._knots)
        values = self._values.flatten(1)[:, at]
        # roots, so that places of small numbers are not left out altogether
        roots = values.abs().sqrt() * values.sign()
        slopes = torch.zeros_like(roots)
        for axis, size in enumerate(at.shape, start=1):
            if size > 1:
                slopes += torch.gradient(roots, dim=axis)[0].square()
        largest = values.flatten(1).abs().amax(1, keepdim=True)  # each target's own scale
        steepness = (slopes.flatten(1) / largest.clamp(min=SMALLEST)).amax(0)
        unknown = ~self._known.flatten()[at].flatten()
        order = torch.where(unknown, steepness, -1.0).argsort(descending=True, stable=True)
        return at.flatten()[order[: min(count, int(unknown.sum()))]]

    def _grid(self, knots: Sequence[Tensor]) -> Tensor:
        """Return the flat place of each combination of knots."""
        flat = torch.zeros((), dtype=torch.int64)
        for axis, size in zip(knots, self.shape, strict=True):
            flat = flat[..., None] * size + axis
        return flat


def every_place(shape: Sequence[int]) -> list[Tensor]:
    """Return all flat places of a lattice by the rounds of a search without a budget.

    Windows of a batch are computed as large as the largest of them. On ResNet-18 and
    DenseNet-121 this order takes 1.5 to 4.7 % more multiplications than row by row, in batches of
    4 to 32; on a busy machine the time did not show it.
    """
    search, rounds = Search(shape, targets=0), []
    for places in search.rounds():
        search.learn(places, torch.zeros(len(places), 0, dtype=torch.float64))
        rounds.append(places)
    return rounds


def asked_for(shape: Sequence[int], budget: int | None) -> int:
    """Return the most places that a search asks for."""
    if budget is None:
        return math.prod(shape)
    corners = math.prod(min(size, 2) for size in shape)
    return min(math.prod(shape), max(budget, corners))


def _first(shape: Sequence[int], most: int) -> int:
    """Return the smallest power of two as distance of at most `most` knots, if there is one."""
    step = 1
    while math.prod(map(len, _knots(shape, step))) > most and step < max(shape):
        step *= 2
    return step


def _knots(shape: Sequence[int], step: int) -> list[Tensor]:
    """Return the multiples of `step` along each axis, and its last place."""
    return [torch.tensor(sorted({*range(0, size, step), size - 1})) for size in shape]


def _interpolation(old: Tensor, new: Tensor) -> Tensor:
    """Return the share of each old knot at each new one, shape ``(new, old)``."""
    if len(old) == 1:
        return torch.ones(len(new), 1, dtype=torch.float64)
    before = (torch.searchsorted(old, new, right=True) - 1).clamp(max=len(old) - 2)
    share = (new - old[before]).double() / (old[before + 1] - old[before])
    shares = torch.zeros(len(new), len(old), dtype=torch.float64)
    rows = torch.arange(len(new))
    shares[rows, before], shares[rows, before + 1] = 1 - share, share
    return shares
