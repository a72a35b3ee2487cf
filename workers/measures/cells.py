r"""Soft cells that tile an image: the places that the probe bank hides, one at a time.

All lengths are shares of the image's edges, so that one set of cells serves
every image, square or not. A cell is a box with soft walls: its weight along an
axis at share ``u`` is

.. math:: w(u) = \operatorname{clip}(\tfrac{u - a}{s} + \tfrac12, 0, 1)
          \operatorname{clip}(\tfrac{b - u}{s} + \tfrac12, 0, 1)

with walls `a`, `b` and softness `s`; over several axes weights are multiplied.
Cells side by side sum to 1 everywhere, also at the image's border, beyond which
the outermost reach.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

SOFT_SHARE: Final = 0.25
"""Width of a soft wall, as a share of the cell."""

Span = tuple[float, float]
"""Lower and upper wall, as shares of the image's edge."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """Equal cells that stand side by side and cover the image."""

    count: int
    """Cells along each axis."""

    axes: int

    @property
    def edge(self) -> float:
        """Length of a cell, as a share of the image's edge."""
        return 1 / self.count

    @property
    def walls(self) -> tuple[tuple[Span, ...], ...]:
        """For each cell, and each axis, its lower and upper wall."""
        return tuple(product(self._spans(), repeat=self.axes))

    def profiles(self, size: int) -> NDArray[np.float64]:
        """Return the weights along one axis of `size` pixels, shape ``(count, size)``."""
        soft, u = SOFT_SHARE * self.edge, (np.arange(size) + 0.5) / size
        lower, upper = np.array(self._spans()).T[:, :, None]
        rise = np.clip((u - lower) / soft + 0.5, 0, 1)
        fall = np.clip((upper - u) / soft + 0.5, 0, 1)
        profiles: NDArray[np.float64] = rise * fall
        return profiles

    def _spans(self) -> list[Span]:
        """Return the walls along one axis."""
        beyond, last = SOFT_SHARE * self.edge / 2, self.count - 1
        return [
            (k * self.edge - beyond * (k == 0), (k + 1) * self.edge + beyond * (k == last))
            for k in range(self.count)
        ]


def lattices(axes: int) -> tuple[Lattice, ...]:
    """Return the bank's cells for an image of 2 or 3 axes.

    In 2-D 3 x 3 and 4 x 4 cells, 25 in all: no inner wall of one lattice stands
    on a wall of the other, so what one cuts apart lies within a cell of the
    other, and a map must be right at two scales. In 3-D 3 x 3 x 3, that is, 27.

    Raises
    ------
    ValueError
        There is no bank for another number of axes.
    """
    if axes == 2:  # noqa: PLR2004 - rows and columns
        return Lattice(3, axes), Lattice(4, axes)
    if axes == 3:  # noqa: PLR2004 - slices, rows and columns
        return (Lattice(3, axes),)
    raise ValueError("the probe bank is made for images of two or three axes")


@lru_cache(maxsize=64)
def lines(size: int, axes: int, axis: int) -> NDArray[np.float64]:
    """Return the weights of every cell along one of an image's axes, lattice by lattice.

    Parameters
    ----------
    size
        Pixels along the axis.

    Returns
    -------
    NDArray
        Shape ``(cells, size)``, not to be written. A cell's weight of a pixel is the
        product of those along each axis.
    """
    return np.concatenate(
        [
            each.profiles(size)[np.indices((each.count,) * axes)[axis].ravel()]
            for each in lattices(axes)
        ]
    )
