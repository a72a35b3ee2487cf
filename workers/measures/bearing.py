"""Whether a map's places are those that move the score, by the probe bank.

A map is reduced to its mass in each cell of the bank and correlated with what
hiding the cell did to the score. How strong a correlation a map of this very
smoothness reaches by chance is told by transforms of the map itself: flips,
turns and wrap-around shifts. No model pass is needed for that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.domain.grid import Grid
from service.domain.trust import Probes
from workers.measures.cells import SOFT_SHARE, lattices

Array = NDArray[np.float64]
Bearing = Literal["measured", "uninformative", "too_small", "constant_map", "non_finite", "no_bank"]

SMALLEST: Final = 32
"""Pixels of the shortest edge under which a cell hides too little to mean anything."""

SIDES: Final = {2: 32, 3: 24}
"""Points along each axis of the square grid that maps are brought to, by axes."""

SHIFTS: Final = {2: 4, 3: 3}
"""Wrap-around shifts of the map along each axis, by axes."""

INFILL: Final = "the image under a Gaussian blur of one twelfth of each edge"

SPREAD: Final = 64 * float(np.finfo(np.float32).eps)
"""Fall of a score, relative to its size (at least 1), that rounding alone can make."""

PLANE: Final = 2
"""Axes of an image whose rows and columns may change places."""

FLAT: Final = 1e-6
"""Spread of the cells' masses, relative to the largest, under which a map is constant."""

TIE: Final = 1e-6
"""Difference of statistics under which a transform is no worse than the map itself."""

FEW: Final = 6
"""Levels among the falls under which the score is called stepped."""


@dataclass(frozen=True, slots=True, eq=False)
class Bearings:
    """How a map agrees with what the model did when places were hidden."""

    outcome: Bearing
    r: float | None = None
    """Correlation, the lattices' weighted by their degrees of freedom."""

    p: float | None = None
    """Share of the transforms, the map itself counted, that agree at least as well."""

    transforms: int = 0
    few_levels: bool = False
    """Whether the score moves in few steps, as quantized models do."""


def bearings(
    values: NDArray[np.float32], grid: Grid, extent: Sequence[int], drops: Array, score: float
) -> Bearings:
    """Compare one map with the falls of one score.

    Parameters
    ----------
    values
        Raw signed map, shape ``(C, *cells)``; channels are summed.
    grid
        Cells of the map in the model's input; axes are parallel.
    extent
        Spatial shape of the model's input.
    drops
        Fall of the score for each cell of the bank, shape ``(cells,)``.
    score
        The score on the unchanged image.

    Returns
    -------
    Bearings
        ``measured`` with `r` and `p`, or why nothing could be measured.
    """
    if min(extent) < SMALLEST:
        return Bearings("too_small")
    if not np.isfinite(values).all():
        return Bearings("non_finite")
    if not (np.isfinite(drops).all() and np.isfinite(score)):
        return Bearings("no_bank")
    spread = SPREAD * max(1.0, abs(score), float(np.abs(drops).max()))
    if np.ptp(drops) <= spread:
        return Bearings("uninformative")
    square = squared(values.astype(np.float64).sum(axis=0), grid, extent)
    if not _varies(masses(square[None])[0]):
        return Bearings("constant_map")
    statistics = _statistics(masses(transforms(square)), drops, square.ndim)
    at_least = int((statistics >= statistics[0] - TIE).sum())
    return Bearings(
        "measured",
        r=float(np.tanh(statistics[0] / sum(_freedoms(square.ndim)))),
        p=at_least / len(statistics),
        transforms=len(statistics) - 1,
        few_levels=np.unique(np.round(drops / spread)).size < FEW,
    )


def agreements(
    values: NDArray[np.float32], grid: Grid, extent: Sequence[int], drops: Array, scores: Array
) -> Array:
    """Return how one map agrees with the falls of every score, shape ``(classes,)``.

    Parameters
    ----------
    drops
        Fall of each score, shape ``(cells, classes)``.
    scores
        On the unchanged image, shape ``(classes,)``.

    Returns
    -------
    Array
        The correlation `r` of :func:`bearings`; NaN where it measures nothing.
    """
    found = np.full(len(scores), np.nan)
    if min(extent) < SMALLEST or not np.isfinite(values).all():
        return found
    mass = masses(squared(values.astype(np.float64).sum(axis=0), grid, extent)[None])
    if not _varies(mass[0]):
        return found
    total = sum(_freedoms(len(extent)))
    for k, score in enumerate(scores):
        fall = drops[:, k]
        spread = SPREAD * max(1.0, abs(score), float(np.abs(fall).max()))
        if np.isfinite(fall).all() and np.ptp(fall) > spread:
            found[k] = np.tanh(_statistics(mass, fall, len(extent))[0] / total)
    return found


def brought(values: NDArray[np.float32], grid: Grid, extent: Sequence[int], side: int) -> Array:
    """Return the mass of a map ``(C, *cells)`` on `side` equal cells along each axis."""
    return squared(values.astype(np.float64).sum(axis=0), grid, extent, side)


def described(extent: Sequence[int], grid: Grid, drops: Array) -> Probes:
    """Return the bank as one map was held against it, for whoever computes `p` again.

    Parameters
    ----------
    grid
        Cells of the map in the model's input.
    drops
        Fall of the score for each cell of the bank, shape ``(cells,)``.
    """
    axes = len(extent)
    banks = lattices(axes)
    return Probes(
        cells=tuple(cell for each in banks for cell in each.walls),
        lattices=tuple(len(each.walls) for each in banks),
        softness=tuple(SOFT_SHARE * each.edge for each in banks),
        infill=INFILL,
        extent=tuple(extent),
        map_to_input=tuple(tuple(float(value) for value in row) for row in grid.affine),
        side=SIDES[axes],
        shifts=SHIFTS[axes],
        drops=tuple(float(drop) for drop in drops),
    )


def squared(relevance: Array, grid: Grid, extent: Sequence[int], side: int | None = None) -> Array:
    """Return a map on a square grid, of `SIDES` points unless said: the mass on each point."""
    side = side or SIDES[relevance.ndim]
    result = relevance
    for axis, count in enumerate(relevance.shape):
        scale, offset = grid.affine[axis, axis], grid.affine[axis, -1]
        edges = (np.arange(count + 1) - 0.5) * scale + offset + 0.5
        share = _overlap(edges / extent[axis] * side, side)
        result = np.moveaxis(np.tensordot(share, result, axes=(1, axis)), 0, axis)
    return result


def _overlap(edges: Array, side: int) -> Array:
    """Return the share of each source cell that lies on each of `side` unit cells."""
    lower, upper = edges[:-1], edges[1:]
    unit = np.arange(side)[:, None]
    common = np.minimum(unit + 1, upper) - np.maximum(unit, lower)
    share: Array = np.clip(common, 0, None) / (upper - lower)
    return share


def masses(squares: Array) -> Array:
    """Return the mass of maps ``(n, *side)`` in each cell of the bank, ``(n, cells)``."""
    weights = _weights(squares.ndim - 1)
    mass: Array = squares.reshape(len(squares), -1) @ weights.T
    return mass


def transforms(square: Array) -> Array:
    """Return the map and its transforms, shape ``(n, *side)``, the map itself first.

    In 2-D all 8 flips and turns, each with 16 wrap-around shifts: 128. In 3-D
    the 8 flips, because slices are no rows, each with 27 shifts: 216.
    """
    steps = SHIFTS[square.ndim]
    shifts = [k * square.shape[0] // steps for k in range(steps)]
    axes = tuple(range(square.ndim))
    return np.stack(
        [
            np.roll(turned, shift, axes)
            for turned in _turned(square)
            for shift in product(shifts, repeat=square.ndim)
        ]
    )


def _turned(square: Array) -> Iterator[Array]:
    """Iterate over flips, in 2-D with and without exchange of the axes."""
    bases = (square, square.T) if square.ndim == PLANE else (square,)
    for base in bases:
        for flips in product((False, True), repeat=square.ndim):
            yield np.flip(base, tuple(axis for axis, flip in enumerate(flips) if flip))


def _statistics(mass: Array, drops: Array, axes: int) -> Array:
    """Return for each row of masses ``(n, cells)`` the weighted sum of Fisher's z."""
    total = np.zeros(len(mass))
    start = 0
    for lattice, weight in zip(lattices(axes), _freedoms(axes), strict=True):
        cells = slice(start, start + len(lattice.walls))
        total += weight * np.arctanh(_pearson(mass[:, cells], drops[cells]))
        start = cells.stop
    return total


def _pearson(rows: Array, drops: Array) -> Array:
    """Return the correlation of each row with `drops`; 0 where either is constant."""
    centered = rows - rows.mean(axis=1, keepdims=True)
    fall = drops - drops.mean()
    norm = np.linalg.norm(centered, axis=1) * np.linalg.norm(fall)
    flat = np.ptp(rows, axis=1) <= FLAT * np.abs(rows).max()
    r = np.divide(centered @ fall, norm, out=np.zeros(len(rows)), where=~flat & (norm > 0))
    bounded: Array = np.clip(r, -1 + TIE, 1 - TIE)
    return bounded


def _varies(mass: Array) -> bool:
    """Tell whether any cell differs from another by more than rounding."""
    return bool(np.ptp(mass) > FLAT * np.abs(mass).max())


@cache
def _weights(axes: int) -> Array:
    """Return the cells' weights on the square grid, shape ``(cells, side ** axes)``."""
    shape = (SIDES[axes],) * axes
    stacked = np.concatenate([each.weights(shape) for each in lattices(axes)])
    flat: Array = stacked.reshape(len(stacked), -1)
    return flat


def _freedoms(axes: int) -> list[float]:
    """Return each lattice's weight: the square root of its cells less three."""
    return [float(np.sqrt(len(each.walls) - 3)) for each in lattices(axes)]
