"""Targets of a classifier, resolved by the model's answer."""

import math
from typing import Any

import pytest
import torch

from service.domain.grid import Grid
from service.domain.manifest import Manifest
from service.domain.target import ClassTarget
from service.errors.requests import InvalidTarget
from workers.passes import Scalar
from workers.targets.base import Answer, Chosen
from workers.targets.classes import SLOPE, check, predictions_of
from workers.targets.resolve import predict, resolve
from workers.targets.scalars import ClassLogit

CLASSES = [
    {"key": "nodule", "label": "Nodule", "threshold": 0.5},
    {"key": "effusion", "label": "Effusion", "threshold": 0.9},
    {"key": "fracture", "label": "Fracture"},
]
LOGITS = (0.3, 2.0, 5.0)


def manifest(task: str = "classification-multilabel", **changes: Any) -> Manifest:
    content = {
        "id": "small",
        "version": "1.0.0",
        "title": "Small",
        "publisher": "Tests",
        "license": "MIT",
        "intended_use": "tests",
        "not_for": "patients",
        "task": task,
        "runtime": "onnx",
        "files": [
            {"role": "forward", "format": "onnx", "path": "m.onnx", "sha256": "0" * 64, "bytes": 1},
            {
                "role": "selftest",
                "format": "dicom",
                "path": "t.dcm",
                "sha256": "0" * 64,
                "bytes": 1,
            },
        ],
        "inputs": [{"accept": {"modalities": ["CR"]}, "steps": [{"name": "resize"}]}],
        "outputs": [{"classes": CLASSES}],
        "selftests": [
            {"title": "ordinary", "input": "t.dcm", "logits": [0, 0, 0], "tolerance": 0.1}
        ],
    }
    return Manifest.model_validate(content | changes)


def resolved(
    *targets: ClassTarget, model: Manifest | None = None, logits: tuple[float, ...] = LOGITS
) -> tuple[Chosen, ...]:
    outputs = torch.tensor(logits, dtype=torch.float64)
    given = Answer(model or manifest(), outputs, Grid.identity((8, 8)))
    return resolve(targets, given, predict(given)).chosen


def chosen(*asked: str | int, model: Manifest | None = None) -> list[tuple[str, str]]:
    found = resolved(*(ClassTarget(of=of) for of in asked), model=model)
    return [(each.target.key, each.target.asked_as) for each in found]


def test_a_class_is_found_by_key_and_by_index() -> None:
    assert chosen("effusion", 0) == [("effusion", "effusion"), ("nodule", "0")]


def test_top1_is_the_class_of_the_highest_logit() -> None:
    assert chosen("top1") == [("fracture", "top1")]


def test_above_threshold_compares_probabilities_with_each_classs_own_threshold() -> None:
    """Logits 0.3 and 2.0 are probabilities 0.57 and 0.88: above 0.5, and not above 0.9."""
    assert chosen("above_threshold") == [("nodule", "above_threshold")]


def test_nothing_above_its_threshold_is_no_error() -> None:
    assert resolved(ClassTarget(of="above_threshold"), logits=(-9.0, -9.0, 9.0)) == ()


def test_probabilities_follow_the_task() -> None:
    labels = predictions_of(manifest(), LOGITS)
    assert [each.probability for each in labels] == pytest.approx(
        [1 / (1 + math.exp(-logit)) for logit in LOGITS]
    )
    classes = predictions_of(manifest("classification-multiclass"), LOGITS)
    total = sum(math.exp(logit) for logit in LOGITS)
    assert [each.probability for each in classes] == pytest.approx(
        [math.exp(logit) / total for logit in LOGITS]
    )
    assert [each.above_threshold for each in labels] == [True, False, None]
    assert [each.above_threshold for each in classes] == [False, False, None]


def test_a_class_asked_for_twice_comes_once_as_first_asked() -> None:
    assert chosen("fracture", "top1", 2) == [("fracture", "fracture")]


def test_a_resolved_target_carries_the_models_answer() -> None:
    (each,) = resolved(ClassTarget(of="nodule"))
    assert (each.target.index, each.target.score, each.target.threshold) == (0, 0.3, 0.5)
    assert each.target.above_threshold is True
    assert each.scalar == ClassLogit(0)


@pytest.mark.parametrize("of", ["pneumonia", 3, "3"])
def test_a_class_that_the_model_does_not_have_is_refused(of: str | int) -> None:
    with pytest.raises(InvalidTarget):
        check(ClassTarget(of=of), manifest())
    with pytest.raises(InvalidTarget):
        chosen(of)


def test_thresholds_that_nobody_declared_cannot_be_exceeded() -> None:
    bare = [{"key": each["key"], "label": each["label"]} for each in CLASSES]
    with pytest.raises(InvalidTarget, match="thresholds"):
        chosen("above_threshold", model=manifest(outputs=[{"classes": bare}]))


def test_more_logits_than_classes_are_refused() -> None:
    with pytest.raises(InvalidTarget):
        predictions_of(manifest(), (1.0, 2.0))


def test_equal_scalars_are_one() -> None:
    outputs = torch.arange(12.0).reshape(4, 3)
    assert len({ClassLogit(1), ClassLogit(1), ClassLogit(2)}) == 2
    assert torch.equal(ClassLogit(1)(outputs), outputs[:, 1])
    assert ClassLogit(1).weights == ((1, 1.0),)


UNFIT = [{**CLASSES[0], "not_for_use": "It never worked."}, *CLASSES[1:2]]


def test_a_class_that_is_not_for_use_is_explained_in_no_way() -> None:
    marked = manifest(outputs=[{"classes": [*UNFIT, {**CLASSES[2], "not_for_use": "Nor this."}]}])
    assert chosen("top1", model=marked) == [("effusion", "top1")]
    assert chosen("above_threshold", model=marked) == []
    for of in ("nodule", 0, "fracture"):
        with pytest.raises(InvalidTarget, match="not for use"):
            check(ClassTarget(of=of), marked)
    assert predictions_of(marked, LOGITS)[0].above_threshold is None


def test_a_model_of_which_nothing_is_for_use_is_refused() -> None:
    with pytest.raises(ValueError, match="for use"):
        manifest(outputs=[{"classes": UNFIT[:1]}])


# ------------------------------------------------------------------------- scores

EXCLUSIVE = "classification-multiclass"
NEAR = torch.tensor([[0.3, 2.0, 5.0], [-1.5, 0.25, -0.75], [4.0, 3.9, 0.0]], dtype=torch.float64)
"""Outputs of other images."""


def one(score: str, of: str = "effusion", task: str = "classification-multilabel") -> Chosen:
    target = ClassTarget.model_validate({"of": of, "score": score})
    (found,) = resolved(target, model=manifest(task))
    return found


def slopes(scalar: Scalar, outputs: torch.Tensor) -> torch.Tensor:
    """The gradient by central differences of the scalar's own values."""
    step, found = 1e-6, torch.zeros_like(outputs)
    for k in range(outputs.shape[1]):
        shift = torch.zeros(outputs.shape[1], dtype=outputs.dtype)
        shift[k] = step
        found[:, k] = (scalar(outputs + shift) - scalar(outputs - shift)) / (2 * step)
    return found


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


@pytest.mark.parametrize("task", ["classification-multilabel", EXCLUSIVE])
def test_a_probability_is_what_the_model_says_and_so_is_its_slope(task: str) -> None:
    found = one("probability", task=task)
    assert found.target.score == pytest.approx(found.target.probability)
    assert (found.target.key, found.target.about) == ("effusion-probability", "effusion")
    assert found.target.quantity == "probability"
    if task == EXCLUSIVE:
        said = [math.exp(z[1]) / sum(map(math.exp, z)) for z in NEAR.tolist()]
    else:
        said = [sigmoid(z[1]) for z in NEAR.tolist()]
    assert found.scalar(NEAR).tolist() == pytest.approx(said)
    outputs = NEAR.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(found.scalar(outputs).sum(), outputs)
    torch.testing.assert_close(gradient, slopes(found.scalar, NEAR), rtol=1e-6, atol=1e-9)


def test_a_margin_is_over_the_class_that_was_next_best_on_the_unchanged_image() -> None:
    found = one("margin", task=EXCLUSIVE)
    assert found.target.score == pytest.approx(2.0 - 5.0)
    assert (found.target.versus, found.target.key) == ("fracture", "effusion-margin")
    assert found.target.quantity == "margin over the next best class"
    assert found.scalar(NEAR).tolist() == pytest.approx([-3.0, 1.0, 3.9])  # fracture, always
    best = one("margin", of="top1", task=EXCLUSIVE)
    assert (best.target.about, best.target.versus) == ("fracture", "effusion")
    assert best.target.score == pytest.approx(3.0)


def test_a_margin_of_a_class_of_its_own_is_over_its_threshold() -> None:
    found = one("margin")
    assert found.target.score == pytest.approx(2.0 - math.log(0.9 / 0.1))
    assert found.target.score < 0
    assert found.target.above_threshold is False
    assert found.target.versus is None
    assert found.target.quantity == "logit above its threshold"
    assert one("margin", of="fracture").target.score == 5.0  # no threshold: one half


def test_no_margin_is_over_a_class_that_is_not_for_use() -> None:
    classes = [*CLASSES[:2], {**CLASSES[2], "not_for_use": "It never worked."}]
    marked = manifest(EXCLUSIVE, outputs=[{"classes": classes}])
    (found,) = resolved(ClassTarget(of="effusion", score="margin"), model=marked)
    assert found.target.versus == "nodule"


@pytest.mark.parametrize(("logit", "saturated"), [(4.5, False), (4.7, True), (-4.7, True)])
def test_a_probability_that_hardly_changes_any_more_says_so(logit: float, saturated: bool) -> None:
    asked = (ClassTarget(of=0, score="probability"), ClassTarget(of=0))
    found, plain = resolved(*asked, logits=(logit, 0.0, 0.0))
    assert found.target.saturated is saturated
    assert plain.target.saturated is False
    slope = sigmoid(logit) * (1 - sigmoid(logit))
    assert (slope < SLOPE) is saturated
    fall = abs(sigmoid(logit) - sigmoid(logit - 1 if logit > 0 else logit + 1))
    assert not saturated or fall < 2 * SLOPE  # what the threshold stands for


def test_scores_of_one_class_are_targets_of_their_own_and_can_be_asked_for_again() -> None:
    asked = [
        ClassTarget.model_validate({"of": "top1", "score": each})
        for each in ("logit", "probability", "margin")
    ]
    found = resolved(*asked)
    assert [each.target.key for each in found] == [
        "fracture",
        "fracture-probability",
        "fracture-margin",
    ]
    assert [each.target.is_logit for each in found] == [True, False, False]
    assert len({each.scalar for each in found}) == 3
    for each in found[1:]:
        assert isinstance(each.target.again, ClassTarget)
        (again,) = resolved(each.target.again)
        assert again.scalar == each.scalar
        assert again.target.key == each.target.key
