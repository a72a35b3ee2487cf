import numpy as np
import pytest

from workers.measures.base import Case
from workers.measures.repeat import Repeat

MAP = np.linspace(-1, 3, 12, dtype=np.float32).reshape(1, 3, 4)


def case(again: np.ndarray | None) -> Case:
    return Case(MAP, score=1.0, of_scores=False, extras={}, again=again)


def test_the_same_map_repeats() -> None:
    check = Repeat().judge(case(MAP.copy()))
    assert (check.outcome, check.values["relative_difference"]) == ("pass", 0.0)


def test_rounding_is_no_difference_and_a_thousandth_is() -> None:
    assert Repeat().judge(case(MAP + np.float32(4e-6))).outcome == "pass"
    check = Repeat().judge(case(MAP * np.float32(1.001)))
    assert check.outcome == "fail"
    assert check.flags == ("not_repeatable",)


@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
def test_a_second_map_that_is_not_finite_does_not_repeat(spoiled: float) -> None:
    again = MAP.copy()
    again[0, 0, 0] = spoiled
    assert Repeat().judge(case(again)).outcome == "fail"


def test_a_method_that_ran_once_is_not_judged() -> None:
    assert Repeat().judge(case(None)).outcome == "not_applicable"


def test_differences_of_scores_bear_the_rounding_of_the_score() -> None:
    again = MAP + np.float32(1e-4)
    assert Repeat().judge(case(again)).outcome == "fail"
    of_scores = Case(MAP, score=100.0, of_scores=True, extras={}, again=again)
    assert Repeat().judge(of_scores).outcome == "pass"
