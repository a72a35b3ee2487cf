"""Targets of a classifier, resolved by the model's answer."""

import math
from typing import Any

import pytest
import torch

from service.domain.manifest import Manifest
from service.domain.target import ClassTarget
from service.errors.requests import InvalidTarget
from workers.targets.classes import check, predictions_of, resolve
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


def chosen(*asked: str | int, model: Manifest | None = None) -> list[tuple[str, str]]:
    targets = [ClassTarget(of=of) for of in asked]
    return [
        (each.target.key, each.target.asked_as)
        for each in resolve(targets, model or manifest(), LOGITS)
    ]


def test_a_class_is_found_by_key_and_by_index() -> None:
    assert chosen("effusion", 0) == [("effusion", "effusion"), ("nodule", "0")]


def test_top1_is_the_class_of_the_highest_logit() -> None:
    assert chosen("top1") == [("fracture", "top1")]


def test_above_threshold_compares_probabilities_with_each_classs_own_threshold() -> None:
    """Logits 0.3 and 2.0 are probabilities 0.57 and 0.88: above 0.5, and not above 0.9."""
    assert chosen("above_threshold") == [("nodule", "above_threshold")]


def test_nothing_above_its_threshold_is_no_error() -> None:
    targets = [ClassTarget(of="above_threshold")]
    assert resolve(targets, manifest(), (-9.0, -9.0, 9.0)) == ()


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
    ((each),) = resolve([ClassTarget(of="nodule")], manifest(), LOGITS)
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
