"""Maps' mass in every cell of the bank under every transform, and its agreement with falls.

Maps come here on a square grid of `SIDE` points an axis. All of a transform's
masses are products of the map with the cells along each axis, moved; so they
are computed at once, with matrices that depend on the number of axes alone, and
for all maps of a job together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.measures.cells import Lattice, lattices

Array = NDArray[np.float64]

SIDE: Final = 24
"""Points along each axis of the square grid that maps are brought to.

Every lattice and every number of shifts divides it, so that cells of one
lattice are alike and a constant map has the same mass in each.
"""

SHIFTS: Final = {2: 4, 3: 3}
"""Wrap-around shifts of the map along each axis, by axes."""

PLANE: Final = 2
"""Axes of an image whose rows and columns may change places."""

FLAT: Final = 1e-6
"""Spread of numbers, relative to the largest, under which they are all alike."""

TIE: Final = 1e-6
"""Difference of statistics under which a transform is no worse than the map itself."""


def masses(squares: Array) -> Array:
    """Return the mass of maps and their transforms in every cell, shape ``(maps, cells, n)``.

    The map itself stands first. In 2-D there are 8 flips and turns, each with
    16 shifts: 128. In 3-D the 8 flips, because slices are no rows, each with 27
    shifts: 216. To flip and shift a map is to flip and shift the cells, axis by
    axis; to turn it is to change the axes' places.

    Parameters
    ----------
    squares
        Shape ``(SIDE, ..., maps)``.
    """
    frame = frame_of(squares.ndim - 1)
    return _picked(squares, frame.moved, frame.places)


def own_masses(squares: Array) -> Array:
    """Return the mass of maps in every cell, shape ``(maps, cells, 1)``; no transforms."""
    frame = frame_of(squares.ndim - 1)
    return _picked(squares, frame.profiles, frame.cells)


def _picked(squares: Array, profiles: Array, places: NDArray[np.intp]) -> Array:
    """Return some of the products of each map with profiles along every axis."""
    products = along(squares, [profiles] * (squares.ndim - 1))
    found: Array = products.reshape(len(products), -1).take(places, axis=1)
    return found


def along(values: Array, matrices: Sequence[Array]) -> Array:
    """Multiply each axis of `values` with its matrix, shape ``(new, old)``; others go first."""
    for matrix in matrices:  # the first axis goes last, in turn
        rest = values.shape[1:]
        values = (values.reshape(len(values), -1).T @ matrix.T).reshape(*rest, len(matrix))
    return values


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The cells of all lattices under all moves, and how their masses are compared."""

    moved: Array
    """Cells along one axis in all moves, shape ``(moves * spans, side)``."""

    places: NDArray[np.intp]
    """Where the mass in a cell of a transform lies among the products, ``(cells, n)``."""

    profiles: Array
    """Cells along one axis, unmoved, shape ``(spans, side)``."""

    cells: NDArray[np.intp]
    """Where the mass in a cell lies among the products of these, ``(cells, 1)``."""

    lattices: tuple[slice, ...]
    """The cells of each lattice."""

    weights: tuple[float, ...]
    """The lattices' in `z`."""

    def agreement(self, found: Array, falls: Array) -> Array:
        """Return `z` of masses with falls, shape ``(maps, n, scores)``.

        A lattice counts as 0 where the masses, or the falls, are all alike in it.

        Parameters
        ----------
        found
            Masses, shape ``(maps, cells, n)``.
        falls
            Shape ``(maps, cells, scores)``, or one for all maps.
        """
        z = np.zeros((len(found), found.shape[2], falls.shape[2]))
        for cells, weight in zip(self.lattices, self.weights, strict=True):
            mass, fall = found[:, cells], falls[:, cells]
            spread, largest = _reach(mass)
            alike = spread <= FLAT * largest.max(axis=1, keepdims=True)
            flat = alike[:, :, None] | _alike(fall)[:, None]
            mass, fall = _centered(mass), _centered(fall)
            inner = mass.transpose(0, 2, 1) @ fall
            norms = _norms(mass)[:, :, None] * _norms(fall)[:, None]
            r = np.divide(inner, norms, out=np.zeros_like(inner), where=~flat)
            z += weight * np.arctanh(np.clip(r, -1 + TIE, 1 - TIE))
        return z

    def correlation(self, z: Array) -> Array:
        """Return `r`: the lattices' correlations, averaged by their degrees of freedom."""
        r: Array = np.tanh(z / sum(self.weights))
        return r

    def varies(self, found: Array) -> NDArray[np.bool_]:
        """Tell of each map whether any mass differs from another of its lattice.

        Parameters
        ----------
        found
            Masses of the map itself, shape ``(maps, cells, 1)``; beyond rounding.
        """
        flat = [_alike(found[:, cells]) for cells in self.lattices]
        varies: NDArray[np.bool_] = ~np.all(flat, axis=0)[:, 0]
        return varies


def _alike(values: Array) -> NDArray[np.bool_]:
    """Tell where a lattice's values are all alike beside the largest, shape ``(maps, n)``."""
    spread, largest = _reach(values)
    alike: NDArray[np.bool_] = spread <= FLAT * largest
    return alike


def _reach(values: Array) -> tuple[Array, Array]:
    """Return how far apart a lattice's values are, and the largest size, ``(maps, n)`` each."""
    low, high = values.min(axis=1), values.max(axis=1)
    return high - low, np.maximum(high, -low)


def _centered(values: Array) -> Array:
    """Return a lattice's values less their mean."""
    centered: Array = values - values.mean(axis=1, keepdims=True)
    return centered


def _norms(values: Array) -> Array:
    """Return the lengths of a lattice's values, shape ``(maps, n)``."""
    norms: Array = np.sqrt(np.einsum("mcn,mcn->mn", values, values))
    return norms


@cache
def frame_of(axes: int) -> Frame:
    """Return the cells of images of that many axes."""
    banks = lattices(axes)
    ends = np.cumsum([0, *(each.count**axes for each in banks)]).tolist()
    moved = _moved(banks)
    return Frame(
        moved=moved.reshape(-1, SIDE),
        places=_places(banks, *moved.shape[:2]).T.copy(),
        profiles=moved[0],
        cells=_places(banks, 1, moved.shape[1])[:1].T,
        lattices=tuple(slice(*each) for each in pairwise(ends)),
        weights=tuple(math.sqrt(end - start - 3) for start, end in pairwise(ends)),
    )


def _moved(banks: Sequence[Lattice]) -> Array:
    """Return the cells along one axis in all moves, shape ``(moves, spans, side)``."""
    profiles = np.concatenate([each.profiles(SIDE) for each in banks])
    return np.stack(
        [
            np.roll(flipped, shift, axis=1)
            for flipped in (profiles, profiles[:, ::-1])
            for shift in range(0, SIDE, SIDE // SHIFTS[banks[0].axes])
        ]
    )


def _places(banks: Sequence[Lattice], moves: int, spans: int) -> NDArray[np.intp]:
    """Return where each transform's cells lie in the product of all moves along all axes."""
    axes, starts = banks[0].axes, np.cumsum([0, *(each.count for each in banks)])
    cells = [
        cell
        for each, start in zip(banks, starts, strict=False)
        for cell in product(range(start, start + each.count), repeat=axes)
    ]
    moved = np.array(list(product(range(moves), repeat=axes)))[:, None] * spans + np.array(cells)
    orders = ((0, 1), (1, 0)) if axes == PLANE else (tuple(range(axes)),)
    return np.concatenate(
        [
            np.ravel_multi_index([moved[..., axis] for axis in order], (moves * spans,) * axes)
            for order in orders
        ]
    )
