"""By how much a token must stand out when its cell is changed: of few cells, by more."""

import math

import pytest
import torch
from torch import Tensor

from workers.runtimes.token_placement import answering_alone
from workers.tokens import Tokens


@pytest.mark.parametrize(
    ("grid", "times", "held"),
    [((3, 3), 1.9, False), ((3, 3), 2.1, True), ((2, 4), 7.9, False), ((2, 4), 8.1, True)],
)
def test_a_token_stands_out_by_more_where_few_places_could_agree_by_chance(grid, times, held):
    tokens = Tokens(1, grid, 0, reads_class=True, said=True)

    def lit(_number: int, cell: tuple[int, ...], _grid: tuple[int, ...]) -> dict[str, Tensor]:
        own = 1 + cell[0] * grid[1] + cell[1]
        changed = torch.ones(1, tokens.count)
        changed[0, own] = math.sqrt(times)
        return {"layer": changed}

    base = {"layer": torch.zeros(1, tokens.count)}
    assert answering_alone(base, lit, tokens) == ({"layer"} if held else set())
