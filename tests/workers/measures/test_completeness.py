from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import ArrayLike

from workers.measures.base import Case
from workers.measures.completeness import Completeness


def case(values: ArrayLike, **extras: float) -> Case:
    return Case(np.asarray(values, np.float32), score=4.0, of_scores=False, extras=extras)


def test_a_map_that_adds_up_passes() -> None:
    check = Completeness().judge(case([[[1.0, 2.0], [0.5, -0.5]]], score_change=3.0))
    assert check.outcome == "pass"
    assert check.values["relative_residual"] == pytest.approx(0.0)


@pytest.mark.parametrize(("change", "outcome"), [(3.12, "pass"), (3.2, "fail"), (-3.0, "fail")])
def test_the_residual_is_judged_relative_to_the_change(change: float, outcome: str) -> None:
    check = Completeness().judge(case([[[3.0]]], score_change=change))
    assert check.outcome == outcome
    assert check.flags == (("incomplete",) if outcome == "fail" else ())
    assert check.values["relative_residual"] == pytest.approx(abs(3.0 - change) / abs(change))


@pytest.mark.parametrize(("change", "outcome"), [(3.0, "not_applicable"), (3.2, "fail")])
def test_that_a_part_of_a_map_adds_up_is_no_merit(change: float, outcome: str) -> None:
    check = Completeness().judge(replace(case([[[3.0]]], score_change=change), partial=True))
    assert check.outcome == outcome
    assert ("relative_residual" in check.values) == (outcome == "fail")


def test_a_method_that_shares_out_nothing_is_not_judged() -> None:
    assert Completeness().judge(case([[[3.0]]])).outcome == "not_applicable"


def test_no_change_in_score_cannot_be_shared_out() -> None:
    check = Completeness().judge(case([[[0.0]]], score_change=1e-7))
    assert check.outcome == "not_applicable"
    assert check.flags == ("no_change",)
    assert "equals" in check.meaning


def test_a_map_that_is_not_finite_does_not_add_up() -> None:
    check = Completeness().judge(case([[[np.nan]]], score_change=1.0))
    assert check.outcome == "fail"
    assert check.flags == ("incomplete",)
    assert "relative_residual" not in check.values


@pytest.mark.parametrize(
    ("asked", "change", "flags"),
    [
        (0.02, 3.03, ()),
        (0.001, 3.03, ("tolerance_missed",)),
        (0.02, 3.3, ("incomplete", "tolerance_missed")),
        (0.2, 3.3, ("incomplete",)),  # what was asked for excuses nothing
    ],
)
def test_a_map_must_meet_the_tolerance_that_was_asked_for(
    asked: float, change: float, flags: tuple[str, ...]
) -> None:
    check = Completeness().judge(case([[[3.0]]], score_change=change, tolerance=asked))
    assert check.flags == flags
    assert check.outcome == ("fail" if flags else "pass")


def test_the_tolerance_is_a_parameter() -> None:
    strict = Completeness(tolerance=0.001)
    assert strict.judge(case([[[3.0]]], score_change=3.01)).outcome == "fail"
