"""The probe bank's cells by their definition, pixel by pixel."""

import numpy as np
from numpy.typing import NDArray

from workers.measures.cells import SOFT_SHARE, lattices


def weights(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the weight of each pixel in each cell, shape ``(cells, *shape)``."""
    centers = [(np.indices(shape)[axis] + 0.5) / size for axis, size in enumerate(shape)]
    cells = []
    for each in lattices(len(shape)):
        soft = SOFT_SHARE / each.count
        for walls in each.walls:
            cell = np.ones(shape)
            for u, (lower, upper) in zip(centers, walls, strict=True):
                cell *= np.clip((u - lower) / soft + 0.5, 0, 1)
                cell *= np.clip((upper - u) / soft + 0.5, 0, 1)
            cells.append(cell)
    return np.stack(cells)
