"""A map brought from its own grid to the source's pixels, of an image or of a volume."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.domain.grid import Grid, scaling

Shares = NDArray[np.float64]
Cells = NDArray[np.float32]

HALF = 0.5
"""A cell reaches this far from its center."""

DENSE = 16
"""Cells up to which one matrix product is faster than two neighbors for each pixel."""


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """The cells of a map along one axis of its source."""

    cells: int
    scale: float
    offset: float
    """Cell *i* has its center at pixel ``scale * i + offset``; `scale` may be below 0."""

    @property
    def aligned(self) -> bool:
        """Whether cells are pixels."""
        return self.scale == 1 and self.offset == 0

    def weights(self, pixels: int) -> NDArray[np.float32]:
        """Return each cell's share in each pixel, shape ``(pixels, cells)``."""
        first, second, share, covered = self._neighbors(pixels)
        weights = np.zeros((pixels, self.cells), np.float32)
        every = np.arange(pixels)
        weights[every, first] = (1 - share) * covered
        weights[every, second] += share * covered
        return weights

    def spread(self, values: NDArray[np.float32], pixels: int) -> NDArray[np.float32]:
        """Interpolate the first axis of `values`, shape ``(cells, ...)``, at every pixel."""
        if self.aligned and self.cells == pixels:
            return values
        if self.cells <= DENSE:
            flat = self.weights(pixels) @ values.reshape(self.cells, -1)
            return flat.reshape(pixels, *values.shape[1:])
        first, second, share, covered = self._neighbors(pixels)
        edge = (-1, *(1,) * (values.ndim - 1))
        near = ((1 - share) * covered).astype(np.float32).reshape(edge)
        spread = values[first] * near
        spread += values[second] * (share * covered).astype(np.float32).reshape(edge)
        return spread

    def _neighbors(self, pixels: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Shares, Shares]:
        """Return two cells for each pixel, the second's share, and 0 where no cell reaches."""
        at = (np.arange(pixels) - self.offset) / self.scale
        covered = ((at >= -HALF) & (at <= self.cells - HALF)).astype(float)
        inside = np.clip(at, 0, self.cells - 1)
        first = np.minimum(inside.astype(np.intp), max(self.cells - 2, 0))
        return first, np.minimum(first + 1, self.cells - 1), inside - first, covered


@dataclass(frozen=True, slots=True, eq=False)
class Laid:
    """A map whose axes run along its source's, in the source's order."""

    values: NDArray[np.float32]
    """Shape ``(C, *cells)``."""

    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, values: NDArray[np.float32], grid: Grid) -> Self:
        """Turn the axes of a map, shape ``(C, *grid.shape)``, to its source's order.

        A grid's axes may be in another order than the source's and run the other
        way; a grid that is turned by any other angle is a `ValueError`.
        """
        linear = grid.affine[:-1, :-1]
        order = grid.order
        axes = tuple(
            Axis(grid.shape[cells], float(linear[axis, cells]), float(grid.affine[axis, -1]))
            for axis, cells in enumerate(order)
        )
        if sorted(order) != list(range(len(order))) or np.count_nonzero(linear) > len(order):
            raise ValueError("the map's grid is turned against the image")
        return cls(values.transpose(0, *(1 + cells for cells in order)), axes)

    def slice_masses(
        self, slices: int, covered: Sequence[Shares], *, signed: bool
    ) -> NDArray[np.float64]:
        """Return the evidence of each source slice, shape ``(slices,)``.

        It is the sum of what is above zero, of a `signed` map of all magnitudes. Cells count as
        far as they lie in the image: `covered` has their share along its rows and its columns.
        """
        strength: Callable[[Cells], Cells] = np.abs if signed else lambda part: np.maximum(part, 0)
        parts = self.values.swapaxes(0, 1)  # a slice of cells at a time, lest volumes be copied
        rows, columns = covered
        masses = [rows @ strength(part.sum(axis=0)) @ columns for part in parts]
        return np.asarray(self.axes[0].weights(slices) @ np.array(masses))

    def slice(self, number: int, slices: int) -> tuple[NDArray[np.float32], Grid]:
        """Return the map on one source slice, shape ``(C, *cells)``, and its 2-D grid."""
        weights = self.axes[0].weights(slices)[number]
        (used,) = np.nonzero(weights)
        values = np.tensordot(weights[used], self.values[:, used], axes=(0, 1))
        rows, columns = self.axes[1:]
        affine = scaling((rows.scale, columns.scale), (rows.offset, columns.offset))
        return np.asarray(values, np.float32), Grid(values.shape[1:], affine)


def to_source(
    values: NDArray[np.float32], grid: Grid, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Interpolate a map linearly between cell centers, at every source pixel.

    Parameters
    ----------
    values
        Shape ``(C, *grid.shape)``.
    grid
        The map's cells in the source; its axes run along the source's, in any
        order and direction.
    shape
        Rows and columns of the source image; slices first, of a volume.

    Returns
    -------
    NDArray
        Float32, shape ``(C, *shape)``; 0 where no cell lies (what a crop left
        out has no evidence). It is `values` itself where cells are pixels.
    """
    laid = Laid.of(values, grid)
    if laid.values.shape[1:] == shape and all(axis.aligned for axis in laid.axes):
        return laid.values
    found = np.empty((len(values), *shape), np.float32)
    for channel, into in zip(laid.values, found, strict=True):
        if len(shape) == 2:  # noqa: PLR2004 - rows, columns
            into[:] = _plane(channel, laid.axes, shape)
            continue
        for part, pixels in zip(laid.axes[0].spread(channel, shape[0]), into, strict=True):
            pixels[:] = _plane(part, laid.axes[1:], shape[1:])
    return found


def _plane(
    cells: NDArray[np.float32], axes: tuple[Axis, ...], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Spread the columns, then the rows, of one plane."""
    rows, columns = axes
    wide = columns.spread(np.ascontiguousarray(cells.T), shape[1]).T
    return rows.spread(np.ascontiguousarray(wide), shape[0])


def resampling(
    grid: Grid, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the matrices that take a map's rows and columns to the source's pixels.

    Shapes ``(rows, grid.shape[0])`` and ``(columns, grid.shape[1])``.
    """
    linear = grid.affine[:2, :2]
    if linear[0, 1] or linear[1, 0]:
        raise ValueError("the map's grid is turned against the image")
    rows, columns = (
        Axis(grid.shape[axis], linear[axis, axis], grid.affine[axis, 2]).weights(shape[axis])
        for axis in range(2)
    )
    return rows, columns
