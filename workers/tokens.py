"""Where a transformer's tokens lie in the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from service.domain.manifest import Manifest
from service.errors.models import InvalidPackage


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
    """Numbers of a token between two blocks; 0 if not known."""

    reads_class: bool
    """Whether the score is read off the first token, else off the mean of the grid's."""

    stages: tuple[tuple[int, ...], ...] = ()
    """Of tokens that keep their places, attend within windows and are merged on the way:
    ``(*grid, width)`` of each stage, the last being that of `grid` and `width`."""

    said: bool = False
    """Whether a package alone says so: then it is to be tried."""

    @classmethod
    def said_by(cls, manifest: Manifest, size: Sequence[int]) -> Self | None:
        """Return what a package says; `None` if it says nothing.

        Parameters
        ----------
        size
            Of what its network is given, along each axis.

        Raises
        ------
        InvalidPackage
            The cells do not cover that.
        """
        told = manifest.tokens
        if told is None:
            return None
        for pointer, why in told.misfits(size):
            raise InvalidPackage(f"{why[0].upper()}{why[1:]}.", pointer=f"/tokens{pointer}")
        stages = tuple((*grid, 0) for grid in told.stages)
        return cls(told.prefix, told.grids[-1], 0, told.reads_class, stages, said=True)

    def demand_agreement(self, manifest: Manifest) -> None:
        """Require of a package that it says the same, or nothing.

        Raises
        ------
        InvalidPackage
            It says otherwise.
        """
        told = manifest.tokens
        if told is None:
            return
        if (told.prefix, told.grids, told.reads_class) != (
            self.prefix,
            self.grids,
            self.reads_class,
        ):
            cells = ", ".join(" x ".join(map(str, grid)) for grid in self.grids)
            where = f"stages of {cells} cells" if self.stages else f"a grid of {cells} cells"
            raise InvalidPackage(
                f"The network itself knows where its tokens lie: {self.prefix} before {where}, read"
                f" by {'the class token' if self.reads_class else 'the mean'}. 'tokens' says"
                " otherwise: leave it out, or mend the network's parameters.",
                pointer="/tokens",
            )

    @property
    def grids(self) -> tuple[tuple[int, ...], ...]:
        """The grid, or those of all stages."""
        return tuple(stage[:-1] for stage in self.stages) or (self.grid,)

    @property
    def count(self) -> int:
        """Number of tokens."""
        return self.prefix + math.prod(self.grid)

    def fit(self, output: Tensor) -> bool:
        """Tell whether an output of some rows is such tokens."""
        return bool(self.grid_of(output))

    def grid_of(self, output: Tensor) -> tuple[int, ...]:
        """Return the cells of an output along each spatial axis; empty if it is not such tokens."""
        shape = tuple(output.shape[1:])
        if not self.stages:
            wanted = (self.count, *((self.width,) if self.width else shape[1:2]))
            return self.grid if shape == wanted else ()
        for stage in self.stages:
            grid, width = stage[:-1], stage[-1]
            kept = {grid, (math.prod(grid),)} if self.said else {grid}  # in a row too, if tried
            if shape[:-1] in kept and width in {0, shape[-1]}:
                return grid
        return ()

    def listed(self, output: Tensor) -> Tensor:
        """Return such tokens one after the other, ``(rows, width, tokens)``."""
        return output.flatten(1, -2).transpose(1, 2)

    def on_grid(self, output: Tensor) -> Tensor:
        """Return an output of such tokens as ``(rows, width, *grid)``; anything else as it is."""
        grid = self.grid_of(output)
        if not grid:
            return output
        cells = self.listed(output)[..., self.prefix :]
        return cells.reshape(len(output), -1, *grid)

    def spread(self, cells: Tensor, output: Tensor) -> Tensor:
        """Return a value for each cell as it lies in an output; 0 for what is no cell's."""
        flat = torch.cat([cells.new_zeros(self.prefix), cells.flatten()])
        return flat.view(*output.shape[1:-1], 1)
