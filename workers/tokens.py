"""Where a transformer's tokens lie in the image."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """How a layer's output is a grid over the image.

    Outputs are ``(rows, tokens, width)``; or, with `stages`, ``(rows, *grid, width)``.
    """

    prefix: int
    """Tokens before those of the grid: a class token, registers."""

    grid: tuple[int, ...]
    """Cells along each spatial axis; their tokens follow in row-major order."""

    width: int
    """Numbers of a token between two blocks."""

    reads_class: bool
    """Whether the score is read off the first token, else off the mean of the grid's."""

    stages: tuple[tuple[int, ...], ...] = ()
    """Of tokens that keep their places, attend within windows and are merged on the way:
    ``(*grid, width)`` of each stage, the last being that of `grid` and `width`."""

    @property
    def count(self) -> int:
        """Number of tokens."""
        return self.prefix + math.prod(self.grid)

    def fit(self, output: Tensor) -> bool:
        """Tell whether an output of some rows is such tokens."""
        return tuple(output.shape[1:]) in (self.stages or ((self.count, self.width),))

    def grid_of(self, output: Tensor) -> tuple[int, ...]:
        """Return the cells of an output along each spatial axis; empty if it is not such tokens."""
        if not self.fit(output):
            return ()
        return tuple(output.shape[1:-1]) if self.stages else self.grid

    def on_grid(self, output: Tensor) -> Tensor:
        """Return an output of such tokens as ``(rows, width, *grid)``; anything else as it is."""
        if not self.fit(output):
            return output
        if self.stages:
            return output.movedim(-1, 1)
        cells = output[:, self.prefix :].transpose(1, 2)
        return cells.reshape(len(output), self.width, *self.grid)
