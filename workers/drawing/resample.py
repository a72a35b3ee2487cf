"""A map brought from its own grid to the source image's pixels."""

import numpy as np
from numpy.typing import NDArray

from service.domain.grid import Grid

HALF = 0.5
"""A cell reaches this far from its center."""


def to_source(
    values: NDArray[np.float32], grid: Grid, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Interpolate a map linearly between cell centers, at every source pixel.

    Parameters
    ----------
    values
        Shape ``(C, *grid.shape)``.
    grid
        The map's cells in the source image; its axes run along the image's.
    shape
        Rows and columns of the source image.

    Returns
    -------
    NDArray
        Float32, shape ``(C, *shape)``; 0 where no cell lies (what a crop left
        out has no evidence).
    """
    rows, columns = resampling(grid, shape)
    return np.stack([rows @ channel @ columns.T for channel in values])


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
        _weights(grid.shape[axis], linear[axis, axis], grid.affine[axis, 2], shape[axis])
        for axis in range(2)
    )
    return rows, columns


def _weights(cells: int, scale: float, offset: float, pixels: int) -> NDArray[np.float32]:
    """Return each cell's share in each pixel, shape ``(pixels, cells)``."""
    at = (np.arange(pixels) - offset) / scale
    covered = (at >= -HALF) & (at <= cells - HALF)
    inside = np.clip(at, 0, cells - 1)
    floor = np.minimum(inside.astype(int), max(cells - 2, 0))
    share = inside - floor
    weights = np.zeros((pixels, cells), np.float32)
    every = np.arange(pixels)
    weights[every, floor] = (1 - share) * covered
    weights[every, np.minimum(floor + 1, cells - 1)] += share * covered
    return weights
