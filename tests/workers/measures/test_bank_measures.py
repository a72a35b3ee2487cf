"""Measures that ask the model: the probe bank, target specificity, region, template."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from service.domain.grid import Grid
from service.domain.trust import STATEMENTS, Flag, Grade
from tests.support.engine import run_alone
from tests.workers.measures.test_bearing import blob, falls
from workers.measures.bank import BANK, Bank, blurred
from workers.measures.base import Case, Scene
from workers.measures.expected_region import BLUR, REGION, ExpectedRegion
from workers.measures.probe_bank import ProbeBank
from workers.measures.target_specific import TargetSpecific
from workers.measures.template import Template
from workers.runtimes.torch import TorchRuntime

SHAPE = (64, 96)


def case(values: NDArray, drops: NDArray | None = None, **changes: Any) -> Case:
    """Return a map held against the falls of one or more scores."""
    answers = {}
    if drops is not None:
        falls_ = drops.reshape(len(drops), -1)
        answers = {BANK.name: Bank(SHAPE, np.ones(falls_.shape[1]), falls_)}
    facts: dict[str, Any] = {
        "score": 1.0,
        "of_scores": False,
        "extras": {},
        "grid": Grid.identity(SHAPE),
        "extent": SHAPE,
        "answers": answers,
    }
    return Case(values, **facts | changes)


# ------------------------------------------------------------------- probe bank


def test_a_right_map_passes_and_says_what_was_measured() -> None:
    check = ProbeBank().judge(case(blob(), falls(blob())))
    assert check.outcome == "pass"
    assert check.meaning == STATEMENTS[Grade.SUPPORTED]
    assert check.passes == 25
    assert check.values["p"] <= 0.05
    assert check.values["drops"] == pytest.approx(falls(blob()).tolist())


def test_a_wrong_map_fails() -> None:
    check = ProbeBank().judge(case(blob(0.8, 0.2), falls(blob())))
    assert check.outcome == "fail"
    assert check.values["p"] > 0.2


def test_a_method_that_hides_places_itself_is_no_independent_witness() -> None:
    check = ProbeBank().judge(case(blob(), falls(blob()), of_scores=True))
    assert check.flags == (Flag.SAME_KIND_OF_EVIDENCE,)


@pytest.mark.parametrize(
    ("values", "drops", "changes", "flag"),
    [
        (blob(), None, {}, "no_bank"),
        (blob(), None, {"extent": (31, 40)}, "too_small"),
        (blob(), np.zeros(25), {}, "uninformative"),
        (np.zeros((1, *SHAPE), np.float32), falls(blob()), {}, "constant_map"),
        (np.full((1, *SHAPE), np.nan, np.float32), falls(blob()), {}, "non_finite"),
    ],
)
def test_what_cannot_be_measured_has_its_reason_and_no_p(values, drops, changes, flag) -> None:
    check = ProbeBank().judge(case(values, drops, **changes))
    assert check.outcome == "not_applicable"
    assert check.flags == (flag,)
    assert "p" not in check.values


# ------------------------------------------------------------ target specificity


def test_a_map_of_its_own_class_is_specific_and_of_another_is_not() -> None:
    drops = np.stack([falls(blob()), falls(blob(0.8, 0.2))], axis=1)
    check = TargetSpecific().judge(case(blob(), drops))
    assert check.outcome == "pass"
    assert check.values["r"] > 0.9 > check.values["best_other_r"]
    swapped = TargetSpecific().judge(case(blob(), drops, target=1))
    assert swapped.outcome == "fail"
    assert swapped.flags == (Flag.NOT_TARGET_SPECIFIC,)


def test_a_model_of_one_class_has_nothing_to_compare() -> None:
    assert TargetSpecific().judge(case(blob(), falls(blob()))).outcome == "not_applicable"


def test_classes_that_nothing_moves_do_not_count() -> None:
    drops = np.stack([falls(blob()), np.zeros(25)], axis=1)
    assert TargetSpecific().judge(case(blob(), drops)).outcome == "not_applicable"


# ---------------------------------------------------------------- expected region


class Corner(torch.nn.Module):
    """Two scores: what stands out in the top left corner, and in the middle."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        corner = image[:, 0, :8, :8].amax((1, 2)) - image[:, 0].mean((1, 2))
        middle = image[:, 0, 24:40, 24:40].amax((1, 2)) - image[:, 0].mean((1, 2))
        return torch.stack([corner, middle], 1)


def scene() -> Scene:
    image = torch.zeros(1, 64, 64, dtype=torch.float64)
    image[0, 3:5, 3:5] = 4.0
    image[0, 30:33, 30:33] = 4.0
    inside = np.ones((64, 64))
    inside[:10, :10] = 0.0
    return Scene(image, inside)


def answered(seen: Scene) -> dict[str, Any]:
    runtime = TorchRuntime(Corner().double(), (1, 64, 64))
    return {REGION.name: run_alone(REGION.plan(seen), runtime)}


def test_a_score_that_needs_the_corner_is_told_from_one_that_does_not() -> None:
    seen = scene()
    clean = Corner()(seen.image[None])[0]
    said = [
        ExpectedRegion().judge(
            case(blob(), score=float(clean[k]), target=k, answers=answered(seen), gap=4.0)
        )
        for k in (0, 1)
    ]
    assert [each.outcome for each in said] == ["fail", "pass"]
    assert said[0].flags == (Flag.DEPENDS_OUTSIDE_EXPECTED_REGION,)
    hidden = seen.image.clone()
    hidden[:, :10, :10] = blurred(seen.image, BLUR)[:, :10, :10]
    fall = clean[0] - Corner()(hidden[None])[0, 0]
    assert said[0].values["fall"] == pytest.approx(float(fall))


def test_without_a_yardstick_the_fall_is_told_and_not_judged() -> None:
    check = ExpectedRegion().judge(case(blob(), score=5.0, answers=answered(scene())))
    assert check.outcome == "not_applicable"
    assert check.flags == ("no_yardstick",)
    assert check.values["fall"] > 0


@pytest.mark.parametrize(("gap", "outcome"), [(10.1, "pass"), (9.9, "fail")])
def test_a_fall_of_a_fifth_of_the_yardstick_is_flagged(gap: float, outcome: str) -> None:
    answers = {REGION.name: np.array([3.0])}
    check = ExpectedRegion().judge(case(blob(), score=5.0, answers=answers, gap=gap))
    assert check.outcome == outcome


def test_without_a_region_nothing_is_asked() -> None:
    seen = scene()
    assert REGION.rows(seen) == 1
    assert REGION.rows(Scene(seen.image, None)) == 0
    assert REGION.rows(Scene(seen.image, np.ones((64, 64)))) == 0
    assert ExpectedRegion().judge(case(blob())).outcome == "not_applicable"


# ---------------------------------------------------------------------- template


def test_a_map_like_the_mean_of_its_class_is_the_same_for_everybody() -> None:
    mean = np.zeros((16, 16))
    mean[4:6, 11:13] = 0.5
    alike = np.kron(mean, np.ones((4, 6))).astype(np.float32)[None]
    check = Template().judge(case(alike, template=mean / np.linalg.norm(mean)))
    assert check.values["similarity"] == pytest.approx(1.0)
    assert check.flags == (Flag.SAME_FOR_EVERYBODY,)
    other = Template().judge(case(blob(0.8, 0.2), template=mean / np.linalg.norm(mean)))
    assert other.outcome == "pass"


def test_a_part_of_a_map_can_be_too_like_the_mean_of_whole_ones_but_earns_nothing() -> None:
    mean = np.zeros((16, 16))
    mean[4:6, 11:13] = 0.5
    known = {"template": mean / np.linalg.norm(mean), "partial": True}
    alike = np.kron(mean, np.ones((4, 6))).astype(np.float32)[None]
    assert Template().judge(case(alike, **known)).flags == (Flag.SAME_FOR_EVERYBODY,)
    assert Template().judge(case(blob(0.8, 0.2), **known)).outcome == "not_applicable"


def test_without_a_mean_map_nothing_is_compared() -> None:
    assert Template().judge(case(blob())).outcome == "not_applicable"
    blank = case(np.zeros((1, *SHAPE), np.float32), template=np.ones((16, 16)) / 16)
    assert Template().judge(blank).outcome == "not_applicable"
