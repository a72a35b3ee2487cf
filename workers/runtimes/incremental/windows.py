"""Rows that equal one tensor outside of a window each: what layers hand on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.runtimes.folding import layout

Place = tuple[int, ...]
"""A cell's index, or a size, along each spatial axis."""


@dataclass(frozen=True, slots=True, eq=False)
class Windowed:
    """Values of some rows on a spatial grid, of which only windows are held."""

    clean: Tensor
    """What every row is outside of its window, shape ``(C, *grid)``."""

    values: Tensor
    """Inside of it, shape ``(rows, C, *sizes)``."""

    starts: tuple[Place, ...]
    """First cell of each row's window."""

    @property
    def sizes(self) -> Place:
        """Cells of a window along each axis."""
        return tuple(self.values.shape[2:])

    def crop(self, starts: tuple[Place, ...], sizes: Place, padding: float = 0.0) -> Tensor:
        """Return every row inside other windows, shape ``(rows, C, *sizes)``.

        Windows may reach beyond the grid, where rows are `padding`. The
        tensor is this value's own if the windows are.
        """
        if starts == self.starts and sizes == self.sizes:
            return self.values
        grid = tuple(self.clean.shape[1:])
        out = empty(self.values, sizes)
        if any(beyond(start, sizes, grid) for start in starts):
            out.fill_(padding)
        origin = (0,) * len(grid)
        for row, start in enumerate(starts):
            copy(self.clean, origin, out[row], start)
            copy(self.values[row], self.starts[row], out[row], start)
        return out

    def whole(self) -> Tensor:
        """Return every row on the whole grid, shape ``(rows, C, *grid)``."""
        grid = tuple(self.clean.shape[1:])
        return self.crop(((0,) * len(grid),) * len(self.starts), grid)


def empty(like: Tensor, sizes: Place) -> Tensor:
    """Return an unwritten tensor of the rows and channels of `like`, channels innermost.

    Convolutions are quickest on such a layout, and a window is copied out of it
    in long runs.
    """
    shape = (*like.shape[:2], *sizes)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout(shape))


def beyond(start: Place, sizes: Place, grid: Place) -> bool:
    """Tell whether a window reaches beyond the grid."""
    return any(
        first < 0 or first + size > cells
        for first, size, cells in zip(start, sizes, grid, strict=True)
    )


def copy(source: Tensor, at: Place, out: Tensor, start: Place) -> None:
    """Write the part of `source` ``(C, *sizes)``, first cell `at`, that lies in a window.

    Parameters
    ----------
    out, start
        The window's values ``(C, *sizes)`` and first cell.
    """
    taken, written = [slice(None)], [slice(None)]
    for axis, (offset, first) in enumerate(zip(at, start, strict=True), start=1):
        low = max(offset, first)
        high = min(offset + source.shape[axis], first + out.shape[axis])
        if low >= high:
            return
        taken.append(slice(low - offset, high - offset))
        written.append(slice(low - first, high - first))
    out[tuple(written)] = source[tuple(taken)]
