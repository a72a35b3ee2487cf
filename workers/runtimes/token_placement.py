"""Whether tokens lie over the image cell by cell, as a package says: tried, never believed.

A ramp over the whole image, with which other layers are tried, would not tell tokens that are one
cell off. So one cell after another is changed, and its own token must change the most.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from workers.tokens import Tokens

TRIES: Final = 9
"""Cells of a grid that are changed; of fewer, some are changed again, to something else."""

SHARE: Final = 0.75
"""Of the trials, those in which the own token must change the most. Mirrored, or with rows for
columns, some cells of a small grid stay in place, but no more than half."""

MARGIN: Final = 2.0
"""How many times as much as any other, of the squares. Where a grid is of other cells than is said,
one of them covers parts of several tokens, which change alike."""

MARGIN_OF_FEW: Final = 8.0
"""The same of a grid of fewer cells than are tried, where so few places may agree by chance."""

Cell = tuple[int, ...]
Lit = Callable[[int, Cell, Cell], Mapping[str, Tensor]]
"""Returns what layers put out in one of the trials, when a cell of a grid is changed."""


def answering_alone(
    base: Mapping[str, Tensor], lit: Lit, tokens: Tokens, source: Cell = ()
) -> set[str]:
    """Return the layers of which the token of a changed cell changes the most.

    Parameters
    ----------
    base
        What they put out before, by name: numbers of each token, shape ``(numbers, tokens)``.
    source
        The grid of the tokens of which one is changed; empty if it is the image. Within one grid
        cells are what they are, and tokens that are no cell's may see all.
    """
    misses: Counter[str] = Counter()
    held: set[str] = set()
    for grid in tokens.grids:
        cells, alike = cells_of(grid), grid == source
        margin = 1 if alike else MARGIN if math.prod(grid) >= TRIES else MARGIN_OF_FEW
        left = [k for k, each in base.items() if each.shape[1] == tokens.prefix + math.prod(grid)]
        for number, (place, cell) in enumerate(cells):
            found = lit(number, cell, grid) if left else {}
            changes = {k: _changes(base[k], found.get(k)) for k in left}
            if alike:
                changes = {k: each[tokens.prefix :] for k, each in changes.items()}
            own = place if alike else tokens.prefix + place
            misses.update(k for k in left if not _stands_out(changes[k], own, margin))
            left = [k for k in left if misses[k] <= (1 - SHARE) * len(cells)]
        held.update(left)
    return held


def cells_of(grid: Cell) -> list[tuple[int, Cell]]:
    """Return cells of a grid with their places in a row, spread at random; the same each time."""
    generator = torch.Generator().manual_seed(math.prod(grid))
    order = torch.randperm(math.prod(grid), generator=generator)
    places = order.repeat(TRIES)[:TRIES]
    cells = torch.stack(torch.unravel_index(places, grid), 1).tolist()
    return [(place, tuple(cell)) for place, cell in zip(places.tolist(), cells, strict=True)]


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


def _changes(before: Tensor, after: Tensor | None) -> Tensor:
    """Return how much each token changed, squared; nothing if it cannot be told."""
    if after is None or after.shape != before.shape:
        return torch.zeros(before.shape[1])
    return (after - before).double().square().sum(0)


def _stands_out(changes: Tensor, place: int, margin: float) -> bool:
    """Tell whether one token changed, and more than every other by a margin."""
    others = changes.clone()
    others[place] = 0
    return bool(changes[place] > 0 and changes[place] >= margin * others.max())
