"""A map's mass in every cell of the bank under every transform, and its agreement with falls.

Maps come here on a square grid of `SIDE` points an axis. All of a transform's
masses are products of the map with the cells along each axis, moved; so they
are computed at once, with matrices that depend on the number of axes alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
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


def masses(square: Array) -> Array:
    """Return the mass of a map and its transforms in every cell, shape ``(n, cells)``.

    The map itself stands first. In 2-D there are 8 flips and turns, each with
    16 shifts: 128. In 3-D the 8 flips, because slices are no rows, each with 27
    shifts: 216. To flip and shift a map is to flip and shift the cells, axis by
    axis; to turn it is to change the axes' places.
    """
    frame = frame_of(square.ndim)
    found: Array = along(square, [frame.moved] * square.ndim).ravel()[frame.places]
    return found


def along(values: Array, matrices: Sequence[Array]) -> Array:
    """Multiply each axis of `values` with its matrix, shape ``(new, old)``."""
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
    """Where the mass of a transform in a cell lies among the products, ``(n, cells)``."""

    member: Array
    """Whether a cell belongs to a lattice, shape ``(cells, lattices)``: 0 or 1."""

    centering: Array
    """Subtracts the mean of each lattice, shape ``(cells, cells)``, symmetric."""

    weights: Array
    """The lattices' in `z`, shape ``(lattices, 1)``."""

    starts: NDArray[np.intp]
    """First cell of each lattice."""

    def agreement(self, found: Array, falls: Array) -> Array:
        """Return `z` of every row of masses with every score, shape ``(n, scores)``.

        A lattice counts as 0 where the masses, or the falls, are all alike in it.

        Parameters
        ----------
        found
            Masses, shape ``(n, cells)``.
        falls
            Shape ``(cells, scores)``.
        """
        mass, fall = found @ self.centering, self.centering @ falls
        apart = self.member[:, :, None] * fall[:, None]
        inner = (mass @ apart.reshape(len(fall), -1)).reshape(len(mass), *apart.shape[1:])
        norms = np.sqrt(mass * mass @ self.member)[:, :, None] * np.sqrt(self.member.T @ fall**2)
        alike = self._flat(found, np.abs(found).max(axis=0)[None])[:, :, None]
        flat = alike | self._flat(falls.T, np.abs(falls.T)).T
        r = np.divide(inner, norms, out=np.zeros_like(norms), where=~flat)
        z: Array = (self.weights * np.arctanh(np.clip(r, -1 + TIE, 1 - TIE))).sum(axis=1)
        return z

    def correlation(self, z: Array) -> Array:
        """Return `r`: the lattices' correlations, averaged by their degrees of freedom."""
        r: Array = np.tanh(z / self.weights.sum())
        return r

    def varies(self, row: Array) -> bool:
        """Tell whether any mass differs from another of its lattice by more than rounding."""
        return not self._flat(row[None], np.abs(row)[None]).all()

    def _flat(self, rows: Array, sizes: Array) -> NDArray[np.bool_]:
        """Tell where all values of a lattice are alike, ``(n, lattices)``, beside their largest."""
        largest = np.maximum.reduceat(sizes, self.starts, axis=1)
        above = np.maximum.reduceat(rows, self.starts, axis=1)
        spread = above - np.minimum.reduceat(rows, self.starts, axis=1)
        flat: NDArray[np.bool_] = spread <= FLAT * largest
        return flat


@cache
def frame_of(axes: int) -> Frame:
    """Return the cells of images of that many axes."""
    banks = lattices(axes)
    sizes = [each.count**axes for each in banks]
    moved = _moved(banks)
    member = np.repeat(np.eye(len(banks)), sizes, axis=0)
    return Frame(
        moved=moved.reshape(-1, SIDE),
        places=_places(banks, *moved.shape[:2]),
        member=member,
        centering=np.eye(len(member)) - member / sizes @ member.T,
        weights=np.sqrt(np.array(sizes) - 3.0)[:, None],
        starts=np.cumsum([0, *sizes[:-1]]),
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
