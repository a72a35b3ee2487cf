import dataclasses

import numpy as np
import pytest
from numpy.typing import ArrayLike

from workers.measures.base import MEASURES, Case
from workers.measures.integrity import Integrity


def case(values: ArrayLike, *, score: float = 1.0, of_scores: bool = False) -> Case:
    return Case(np.asarray(values, np.float32), score=score, of_scores=of_scores, extras={})


def test_an_ordinary_map_passes_and_its_levels_are_counted() -> None:
    check = Integrity().judge(case([[[0.0, 1.0], [1.0, -2.0]]]))
    assert check.outcome == "pass"
    assert check.flags == ()
    assert check.values == {"minimum": -2.0, "maximum": 1.0, "distinct_values": 3}


@pytest.mark.parametrize("level", [0.0, 1.0, -3e7])
def test_a_constant_map_is_degenerate(level: float) -> None:
    check = Integrity().judge(case(np.full((1, 4, 4), level)))
    assert check.outcome == "fail"
    assert check.flags == ("degenerate",)
    assert check.values["distinct_values"] == 1
    assert "constant" in check.meaning


def test_rounding_around_a_constant_is_degenerate() -> None:
    values = np.full((1, 8, 8), 100.0, np.float32)
    values[0, 0, 0] = np.nextafter(np.float32(100.0), np.float32(200.0))
    assert Integrity().judge(case(values)).flags == ("degenerate",)


def test_a_faint_but_real_gradient_map_is_intact() -> None:
    check = Integrity().judge(case([[[1e-9, 2e-9]]], score=10.0))
    assert check.outcome == "pass"


def test_differences_of_scores_within_the_scores_rounding_are_degenerate() -> None:
    check = Integrity().judge(case([[[1e-6, 2e-6]]], score=10.0, of_scores=True))
    assert check.flags == ("degenerate",)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_fails_and_is_never_drawn_in_color(bad: float) -> None:
    check = Integrity().judge(case([[[0.0, bad], [1.0, 2.0]]]))
    assert check.outcome == "fail"
    assert set(check.flags) == {"non_finite", "degenerate"}
    assert check.values == {"non_finite": 1}
    assert "not finite" in check.meaning


def test_every_measure_says_what_it_means_and_what_it_cannot_see() -> None:
    assert {"integrity", "completeness"} <= set(MEASURES)
    for name in MEASURES:
        measure = MEASURES[name]
        assert measure.title
        assert measure.meaning.endswith(".")
        assert measure.limits.endswith(".")
        assert all(sentence.endswith(".") for sentence in measure.words.values())


@pytest.mark.parametrize(
    ("values", "of_scores", "elsewhere", "flags"),
    [
        (0.0, False, 0.5, ("evidence_elsewhere",)),
        (0.0, False, 0.0, ("degenerate",)),  # nothing anywhere
        (0.1, False, 0.5, ("degenerate",)),  # constant, and not zero
        (1e-7, True, 0.5, ("evidence_elsewhere",)),  # zero, but for the score's rounding
        (1e-7, True, 1e-7, ("degenerate",)),  # and so are all others
    ],
)
def test_a_map_that_is_zero_while_anothers_is_not_says_so(
    values: float, of_scores: bool, elsewhere: float, flags: tuple[str, ...]
) -> None:
    made = case(np.full((1, 4, 4), values), of_scores=of_scores)
    check = Integrity().judge(dataclasses.replace(made, elsewhere=elsewhere))
    assert check.flags == flags
    assert check.outcome == ("fail" if "degenerate" in flags else "pass")
