"""Where a map's cells lie in the image it explains.

Coordinates follow one convention throughout: along each axis, index ``i``
is the *center* of cell ``i``, so cell ``i`` covers ``[i - 1/2, i + 1/2]``.
Axes are in array order: ``(row, column)`` in 2-D, ``(slice, row, column)``
in 3-D.
"""

from dataclasses import dataclass, replace
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
    reach
        From where to where the grid reaches along each axis, in cell indices: by default from
        half a cell before the first center to half a cell past the last one. A grid whose cells
        are not tiles of what it was made of reaches to the borders of that.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    reach: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """Let cells reach half a cell about their centers where nothing else is said."""
        if not self.reach:
            whole = tuple((-0.5, length - 0.5) for length in self.shape)
            object.__setattr__(self, "reach", whole)

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
        return type(self)(self.shape, parent.affine @ self.affine, self.reach)

    def over(self, parent: Self) -> Self:
        """Return the same, of cells that lie along the parent's axes and reach to its borders."""
        steps, firsts = np.diag(self.affine)[:-1], self.affine[:-1, -1]
        lines = zip(parent.shape, steps.tolist(), firsts.tolist(), strict=True)
        reach = tuple(
            ((-0.5 - first) / step, (length - 0.5 - first) / step) for length, step, first in lines
        )
        return replace(self, reach=reach).within(parent)

    @property
    def plane(self) -> Self:
        """The grid without its first axis, whose cells lie along the source's first."""
        return type(self)(self.shape[1:], self.affine[1:, 1:], self.reach[1:])

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
