"""Whether tokens lie over the image cell by cell, as a package says: tried, never believed.

A ramp over the whole image, with which other layers are tried, would not tell tokens that are one
cell off. So one cell after another is changed, and its own token must change the most.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from workers.tokens import Tokens

CELLS: Final = 9
"""Cells of a grid that are changed at most."""

SHARE: Final = 0.75
"""Of them, those of which the own token must change the most. Mirrored, or with rows for columns,
some cells of a small grid stay in place, but no more than half."""

Cell = tuple[int, ...]
Lit = Callable[[Cell, Cell], Mapping[str, Tensor]]
"""Returns what layers put out when one cell of a grid is changed, by name, as `base` has them."""


def answering_alone(base: Mapping[str, Tensor], lit: Lit) -> set[str]:
    """Return the layers of which the token of a changed cell changes the most.

    Parameters
    ----------
    base
        What they put out before, by name: numbers of each cell, shape ``(numbers, *grid)``.
    """
    grids: dict[Cell, list[str]] = defaultdict(list)
    for name, each in base.items():
        grids[tuple(each.shape[1:])].append(name)
    misses: Counter[str] = Counter()
    held: set[str] = set()
    for grid, names in grids.items():
        left, cells = names, cells_of(grid)
        for cell in cells:
            found = lit(cell, grid)
            misses.update(name for name in left if not _hit(base[name], found.get(name), cell))
            left = [name for name in left if misses[name] <= (1 - SHARE) * len(cells)]
            if not left:
                break
        held.update(left)
    return held


def cells_of(grid: Cell) -> list[Cell]:
    """Return some cells of a grid, spread over it at random; the same at every trial."""
    generator = torch.Generator().manual_seed(math.prod(grid))
    places = torch.randperm(math.prod(grid), generator=generator)[:CELLS]
    axes = torch.unravel_index(places, grid)
    return [tuple(cell) for cell in torch.stack(axes, 1).tolist()]


def with_cell(low: Tensor, high: Tensor, tokens: Tokens | None, cell: Cell, grid: Cell) -> Tensor:
    """Return a value that is another one over one cell of a grid.

    Parameters
    ----------
    low, high
        The two, for one row: tokens, or images.
    tokens
        Where tokens lie; `None` of images.
    """
    size = low.shape[2:] if tokens is None else tokens.grid_of(low)
    mask = torch.zeros(*size)
    edges = zip(cell, grid, size, strict=True)
    mask[tuple(slice(k * edge // n, (k + 1) * edge // n) for k, n, edge in edges)] = 1
    return torch.lerp(low, high, (mask if tokens is None else tokens.spread(mask, low)).to(low))


def _hit(before: Tensor, after: Tensor | None, cell: Cell) -> bool:
    """Tell whether the numbers of one cell changed, and more than those of every other."""
    if after is None or after.shape != before.shape:
        return False
    change = (after - before).double().square().sum(0)
    return bool(change[cell] > 0 and change[cell] == change.max())
