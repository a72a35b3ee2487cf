from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from service.domain.grid import Grid, scaling
from workers.measures.base import Box, Case
from workers.measures.localization import Localization, precision

SIZE = (120, 80)


def case(values: NDArray, *boxes: Box) -> Case:
    grid = Grid.partition(values.shape[1:], SIZE)
    return Case(
        values.astype(np.float32),
        score=1.0,
        of_scores=False,
        extras={},
        source=grid,
        boxes=boxes,
        image=SIZE,
    )


def one(row: int, column: int) -> NDArray:
    values = np.zeros((1, 6, 4))
    values[0, row, column] = 2.0
    return values


def test_a_peak_in_the_box_hits_with_all_of_its_energy() -> None:
    check = Localization().judge(case(one(1, 2), (20, 40, 40, 60)))
    assert check.outcome == "pass"
    assert check.values["energy_share"] == pytest.approx(1.0)
    assert check.values["auprc"] == pytest.approx(1.0)
    assert check.values["area_share"] == pytest.approx(1 / 24, rel=0.1)


def test_a_peak_elsewhere_misses() -> None:
    check = Localization().judge(case(one(4, 0), (20, 40, 40, 60)))
    assert check.outcome == "fail"
    assert check.values["energy_share"] == 0.0


def test_half_a_cell_in_the_box_is_half_of_the_energy() -> None:
    check = Localization().judge(case(one(1, 2), (20, 40, 40, 50)))
    assert check.values["energy_share"] == pytest.approx(0.5, rel=0.05)


def test_the_peak_is_that_of_the_image_and_not_of_the_padding_around_it() -> None:
    values = one(1, 2)
    values[0, 3, 0] = 5.0
    beside = Grid((6, 4), scaling((20, 40), (9.5, -20.5)))  # the first column of cells lies beside
    found = case(values, (20, 40, 40, 80))
    check = Localization().judge(replace(found, source=beside))
    assert check.outcome == "pass"
    assert check.values["energy_share"] == pytest.approx(2 / 7, rel=0.05)


def test_a_volume_is_held_against_boxes_of_six_numbers() -> None:
    values = np.zeros((1, 4, 6, 5))
    values[0, 3, 1, 2] = 2.0
    values[0, 0, 1, 2] = 1.0  # the same place in another slice
    grid = Grid.partition(values.shape[1:], (12, 120, 80))
    box = (9, 20, 32, 12, 40, 48)
    given = {"score": 1.0, "of_scores": False, "extras": {}, "source": grid, "image": (12, 120, 80)}
    check = Localization().judge(Case(values.astype(np.float32), boxes=(box,), **given))
    assert check.outcome == "pass"
    assert check.values["energy_share"] == pytest.approx(2 / 3, rel=0.05)
    assert check.values["area_share"] == pytest.approx(1 / 120, rel=0.2)
    above = (0, *box[1:3], 3, *box[4:])
    check = Localization().judge(Case(values.astype(np.float32), boxes=(above,), **given))
    assert (check.outcome, round(check.values["energy_share"], 2)) == ("fail", 0.33)


def test_without_an_annotation_or_a_peak_nothing_is_said() -> None:
    assert Localization().judge(case(one(1, 2))).outcome == "not_applicable"
    flat = case(np.ones((1, 6, 4)), (20, 40, 40, 60))
    assert Localization().judge(flat).outcome == "not_applicable"
    beyond = case(one(1, 2), (500, 500, 600, 600))
    assert Localization().judge(beyond).outcome == "not_applicable"
    spoiled = one(1, 2)
    spoiled[0, 0, 0] = np.nan
    assert Localization().judge(case(spoiled, (20, 40, 40, 60))).outcome == "not_applicable"


def test_precision_is_the_mean_precision_at_each_hit() -> None:
    random = np.random.default_rng(0)
    values, inside = random.normal(size=300), random.random(300) < 0.2
    order = np.argsort(-values)
    hits = inside[order]
    slow = np.mean([hits[: k + 1].mean() for k in np.flatnonzero(hits)])
    assert precision(values, inside) == pytest.approx(slow)


def test_equal_values_are_worth_their_share_and_no_more() -> None:
    inside = np.array([True, False, False, False])
    assert precision(np.zeros(4), inside) == pytest.approx(0.25)
