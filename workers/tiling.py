"""Where windows lie on an image, and how much each counts at each of its cells.

Two published conventions, to the cell: MONAI's ``sliding_window_inference`` and
nnU-Net's predictor. They differ in where windows stand and in the center of
the Gaussian.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from service.domain.inputs import SlidingWindow
from workers.rows import Box

SIGMA: Final = 1 / 8
"""Standard deviation of the Gaussian as a share of the window's edge, in both conventions."""

LEAST: Final = 1e-3
"""Least importance in MONAI's convention, where the center has 1."""

KEPT: Final = 8
"""Shares that are kept: windows are visited row by row, and few differ along a row."""

Offsets = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Tiling:
    """The windows over an image of one shape.

    An image smaller than a window along an axis is padded with zeros on both
    sides there; places count in the padded image.

    Parameters
    ----------
    rules
        What the manifest says of windows.
    shape
        Spatial shape of the image.
    fixed
        First cells of the windows along each axis, of a part of a larger image, where they
        stand as they do there.
    """

    rules: SlidingWindow
    shape: tuple[int, ...]
    fixed: tuple[tuple[int, ...], ...] | None = None

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial shape of a window."""
        return self.rules.size

    @cached_property
    def extent(self) -> tuple[int, ...]:
        """Spatial shape of the padded image."""
        return tuple(map(max, self.shape, self.size))

    @cached_property
    def inner(self) -> Box:
        """Where the image lies in the padded one."""
        pairs = zip(self.extent, self.shape, strict=True)
        starts = [(whole - length) // 2 for whole, length in pairs]
        return tuple(
            slice(start, start + length) for start, length in zip(starts, self.shape, strict=True)
        )

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """First cells of the windows along each axis, ascending."""
        if self.fixed is not None:
            return self.fixed
        axes = zip(self.extent, self.size, strict=True)
        return tuple(_STARTS[self.rules.convention](*each, self.rules.overlap) for each in axes)

    @property
    def count(self) -> int:
        """Number of windows."""
        return math.prod(map(len, self.starts))

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """The windows, the last axis fastest."""
        return tuple(
            tuple(slice(at, at + edge) for at, edge in zip(corner, self.size, strict=True))
            for corner in itertools.product(*self.starts)
        )

    @cached_property
    def corners(self) -> tuple[tuple[int, ...], ...]:
        """First cells of the windows as places in the image; below 0 where it is padded."""
        return tuple(
            tuple(at.start - inner.start for at, inner in zip(box, self.inner, strict=True))
            for box in self.boxes
        )

    @property
    def crowd(self) -> tuple[int, ...]:
        """Windows that hold one and the same cell, as many as there are of any cell."""
        cell = []
        for starts, edge in zip(self.starts, self.size, strict=True):
            held = {at: sum(first <= at < first + edge for first in starts) for at in starts}
            cell.append(max(held, key=held.__getitem__))
        holding = (
            all(side.start <= at < side.stop for side, at in zip(box, cell, strict=True))
            for box in self.boxes
        )
        return tuple(k for k, held in enumerate(holding) if held)

    def around(self, windows: Sequence[int]) -> tuple[Box, "Tiling"]:
        """Return the box that windows cover in the padded image, and their tiling of it.

        They are ascending, and all of those that hold something of one box.
        """
        sides = list(zip(*(self.boxes[each] for each in windows), strict=True))
        box = tuple(
            slice(min(at.start for at in axis), max(at.stop for at in axis)) for axis in sides
        )
        starts = tuple(
            tuple(sorted({at.start - whole.start for at in axis}))
            for axis, whole in zip(sides, box, strict=True)
        )
        shape = tuple(each.stop - each.start for each in box)
        return box, Tiling(self.rules, shape, starts)

    def share(self, window: int) -> Tensor:
        """Return the window's share in the blend at its own cells, float32, shape `size`.

        All windows' shares add up to 1 at every cell.
        """
        offsets = tuple(
            tuple(other - at.start for other in starts if abs(other - at.start) < edge)
            for at, starts, edge in zip(self.boxes[window], self.starts, self.size, strict=True)
        )
        return _share(self.rules.blend, self.rules.convention, self.size, offsets)

    def padded(self, image: Tensor) -> Tensor:
        """Return an image ``(..., *shape)`` padded to `extent`; itself where there is no need."""
        if self.extent == self.shape:
            return image
        ends = zip(self.inner, self.extent, strict=True)
        pads = [(at.start, whole - at.stop) for at, whole in ends]
        return functional.pad(image, list(itertools.chain(*reversed(pads))))

    def meeting(self, mask: Tensor) -> tuple[int, ...]:
        """Return the windows that hold a cell of a mask, bool, shape `extent`."""
        return tuple(k for k, box in enumerate(self.boxes) if bool(mask[box].any()))


def within(box: Box, of: Box) -> Box:
    """Return a box in the places of another, which holds it."""
    return tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, of, strict=True))


def overlap(first: Box, second: Box) -> Box | None:
    """Return the box that two have in common, if they do."""
    both = [
        slice(max(a.start, b.start), min(a.stop, b.stop))
        for a, b in zip(first, second, strict=True)
    ]
    return tuple(both) if all(each.start < each.stop for each in both) else None


def _monai_starts(length: int, edge: int, overlap: float) -> tuple[int, ...]:
    """Return every `edge` less the overlap, the last one moved back into the image."""
    step = max(1, int(edge * (1 - overlap)))
    count = math.ceil(max(0, length - edge) / step) + 1
    return tuple(min(k * step, length - edge) for k in range(count))


def _nnunet_starts(length: int, edge: int, overlap: float) -> tuple[int, ...]:
    """Return as many as overlap at least so much, spread evenly."""
    count = math.ceil((length - edge) / (edge * (1 - overlap))) + 1
    step = (length - edge) / max(count - 1, 1)
    return tuple(round(k * step) for k in range(count))


_STARTS: Final = {"monai": _monai_starts, "nnunet": _nnunet_starts}


@lru_cache(maxsize=KEPT)
def _share(
    blend: str, convention: str, size: tuple[int, ...], offsets: tuple[Offsets, ...]
) -> Tensor:
    """Return the share of a window whose neighbors, and itself, stand at `offsets` from it."""
    own = importance(blend, convention, size)
    total = torch.zeros(size)
    for offset in itertools.product(*offsets):
        pairs = list(zip(offset, size, strict=True))
        here = tuple(slice(max(0, by), min(edge, edge + by)) for by, edge in pairs)
        there = tuple(slice(max(0, -by), min(edge, edge - by)) for by, edge in pairs)
        total[here] += own[there]
    return own / total


@lru_cache(maxsize=KEPT)
def importance(blend: str, convention: str, size: tuple[int, ...]) -> Tensor:
    """Return how much a window counts at its cells before all are weighed, shape `size`."""
    if blend == "constant":
        return torch.ones(size)
    if convention == "monai":
        product = _outer([_centered(edge) for edge in size])
        return product.clamp(min=max(float(product.min()), LEAST))
    product = _outer([_filtered(edge) for edge in size])
    product = product / product.max()
    return product.clamp(min=float(product[product > 0].min())).float()


def _outer(axes: Sequence[Tensor]) -> Tensor:
    return reduce(lambda product, axis: product[..., None] * axis, axes)


def _centered(edge: int) -> Tensor:
    """Return a Gaussian about the middle of `edge` cells."""
    places = torch.arange(edge) - (edge - 1) / 2
    return torch.exp(places**2 / (-2 * (SIGMA * edge) ** 2))


def _filtered(edge: int) -> Tensor:
    """Return a Gaussian about cell ``edge // 2``, cut off at four standard deviations."""
    places = torch.arange(edge, dtype=torch.float64) - edge // 2
    values = torch.exp(places**2 / (-2 * (SIGMA * edge) ** 2))
    values[places.abs() > int(4 * SIGMA * edge + 0.5)] = 0
    return values
