"""Where a map's cells lie in the image it explains.

Coordinates follow one convention throughout: along each axis, index ``i``
is the *center* of cell ``i``, so cell ``i`` covers ``[i - 1/2, i + 1/2]``.
Axes are in array order: ``(row, column)`` in 2-D, ``(slice, row, column)``
in 3-D.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A regular grid of cells and its way to the source image.

    Attributes
    ----------
    shape
        Number of cells along each axis.
    affine
        Float64 matrix of shape ``(D + 1, D + 1)`` that takes homogeneous cell
        indices to pixel indices of the source image.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> Self:
        """Return the source image's own grid."""
        return cls(shape, np.eye(len(shape) + 1))

    @classmethod
    def partition(cls, shape: tuple[int, ...], extent: tuple[int, ...]) -> Self:
        """Return cells that share an image of `extent` pixels evenly."""
        scale = np.array(extent, float) / np.array(shape, float)
        return cls(shape, scaling(scale, (scale - 1) / 2))

    def within(self, parent: Self) -> Self:
        """Return this grid, whose affine leads to `parent`, led on to its source."""
        return type(self)(self.shape, parent.affine @ self.affine)

    def to_source(self, points: ArrayLike) -> NDArray[np.float64]:
        """Take cell indices, shape ``(..., D)``, to source pixel indices."""
        return apply(self.affine, points)

    def places(self, axis: int) -> NDArray[np.float64]:
        """Return the cells' source pixel indices along one axis of the source.

        Its shape is as of `shape`, but with 1 for each axis of the grid along which they stay the
        same: of a volume, the indices of all cells would be many times as large as itself.
        """
        *weights, first = self.affine[axis]
        indices = np.ogrid[tuple(slice(length) for length in self.shape)]
        terms = (weight * each for weight, each in zip(weights, indices, strict=True) if weight)
        return np.asarray(sum(terms, np.full((1,) * len(self.shape), first)), np.float64)

    def from_source(self, points: ArrayLike) -> NDArray[np.float64]:
        """Take source pixel indices, shape ``(..., D)``, to cell indices."""
        return apply(np.asarray(np.linalg.inv(self.affine), np.float64), points)

    @property
    def order(self) -> tuple[int, ...]:
        """For each axis of the source, the axis of the grid that runs along it."""
        return tuple(int(row.argmax()) for row in np.abs(self.affine[:-1, :-1]))

    def edges(self, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return where cells begin and end along an axis of the source, in its pixel indices.

        They are those of the axis of the grid that runs along it; no other may be turned to it.
        """
        along = self.order[axis]
        centers = self.affine[axis, along] * np.arange(self.shape[along]) + self.affine[axis, -1]
        half = abs(self.affine[axis, along]) / 2
        return centers - half, centers + half

    def covered(self, extent: tuple[int, ...]) -> tuple[NDArray[np.float64], ...]:
        """Return how much of each cell lies in an image of `extent` pixels, in [0, 1].

        One array for each axis of the grid; a cell's share is their product.
        """
        shares: dict[int, NDArray[np.float64]] = {}
        for axis, (along, pixels) in enumerate(zip(self.order, extent, strict=True)):
            start, end = self.edges(axis)
            length = np.minimum(end, pixels - 0.5) - np.maximum(start, -0.5)
            share = np.clip(length / (end - start), 0, 1)
            shares[along] = np.asarray(np.round(share, 9), np.float64)  # edges that meet are equal
        return tuple(shares[along] for along in range(len(self.shape)))

    @property
    def cell(self) -> tuple[float, ...]:
        """Edge lengths of one cell, in source pixels."""
        return tuple(float(v) for v in np.linalg.norm(self.affine[:-1, :-1], axis=0))


def scaling(scale: ArrayLike, offset: ArrayLike) -> NDArray[np.float64]:
    """Return the affine ``x -> scale * x + offset``, one value an axis."""
    factors = np.asarray(scale, float)
    matrix = np.eye(len(factors) + 1)
    matrix[:-1, :-1] = np.diag(factors)
    matrix[:-1, -1] = np.asarray(offset, float)
    return matrix


def apply(affine: NDArray[np.float64], points: ArrayLike) -> NDArray[np.float64]:
    """Apply an affine of shape ``(D + 1, D + 1)`` to points of shape ``(..., D)``."""
    coordinates = np.asarray(points, float)
    moved: NDArray[np.float64] = coordinates @ affine[:-1, :-1].T + affine[:-1, -1]
    return moved
