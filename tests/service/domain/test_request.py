"""Requests: shorthands, defaults, and what is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from service.domain.job import Priority
from service.domain.request import ExplanationRequest, MethodChoice, Observed
from service.domain.target import LONGEST, ClassTarget


def asked(**changes: Any) -> ExplanationRequest:
    return ExplanationRequest.model_validate(
        {"study": "st_1", "model": "chest", "methods": ["grad_cam"], **changes}
    )


def test_a_methods_name_alone_is_the_method_with_its_defaults() -> None:
    assert asked().methods == (MethodChoice(name="grad_cam"),)
    assert asked(methods=["a", {"name": "b", "parameters": {"steps": 8}}]).methods == (
        MethodChoice(name="a"),
        MethodChoice(name="b", parameters={"steps": 8}),
    )


def test_a_key_or_an_index_alone_is_a_class_target() -> None:
    assert asked(targets=["nodule", 3, {"kind": "class", "of": "top1"}]).targets == (
        ClassTarget(of="nodule"),
        ClassTarget(of=3),
        ClassTarget(of="top1"),
    )


def test_without_targets_everything_above_its_threshold_is_explained() -> None:
    assert asked().targets == (ClassTarget(of="above_threshold"),)


def test_defaults_are_what_a_reader_expects() -> None:
    request = asked()
    assert request.artifacts == ("dicom_sc", "json")
    assert (request.grid, request.checks, request.priority) == (
        "native",
        "standard",
        Priority.NORMAL,
    )


def test_a_request_comes_back_from_json_as_it_went() -> None:
    request = asked(targets=["nodule", 0], methods=["a", "b"], label="case:1", priority="stat")
    assert ExplanationRequest.model_validate_json(request.model_dump_json()) == request


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"methods": []}, "methods"),
        ({"methods": ["a", "a"]}, "methods"),
        ({"methods": ["a"] * 17}, "methods"),
        ({"methods": "grad_cam"}, "methods"),
        ({"methods": ["Grad CAM"]}, "methods"),
        ({"methods": [{"name": "a", "steps": 3}]}, "methods"),
        ({"targets": []}, "targets"),
        ({"targets": [-1]}, "targets"),
        ({"targets": [{"of": "a", "score": "odds"}]}, "targets"),
        ({"targets": ["No Slug"]}, "targets"),
        ({"study": "../x"}, "study"),
        ({"instance": "a/b"}, "instance"),
        ({"model": "Chest"}, "model"),
        ({"grid": "other"}, "grid"),
        ({"priority": "urgent"}, "priority"),
        ({"label": "Jane Doe"}, "label"),
        ({"label": "x" * 65}, "label"),
        ({"method": ["a"]}, "method"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as refused:
        asked(**changes)
    assert {error["loc"][0] for error in refused.value.errors()} == {place}


@pytest.mark.parametrize(
    "said",
    [
        {"score": 0.0},
        {"score": 1.0},
        {"positive": False},
        {"score": 0.5, "positive": True, "tolerance": 0},
        {"score": -15.3, "scale": "logit", "tolerance": 1.5},
    ],
)
def test_a_score_a_decision_or_both_can_be_observed(said: dict[str, Any]) -> None:
    (observed,) = asked(observed=[{"of": "nodule", **said}]).observed
    assert observed == Observed(of="nodule", **said)
    assert observed.model_dump(include=set(said)) == said


def test_an_observation_is_of_a_probability_unless_it_says_otherwise() -> None:
    observed = Observed(of=0, score=0.5)
    assert (observed.scale, observed.tolerance, observed.positive) == ("probability", 0.02, None)


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ({}, ()),
        ({"score": 1.01}, ()),
        ({"score": -0.01}, ()),
        ({"score": float("nan")}, ("score",)),
        ({"score": float("inf")}, ("score",)),
        ({"score": float("-inf"), "scale": "logit"}, ("score",)),
        ({"score": "high"}, ("score",)),
        ({"score": 0.5, "scale": "percent"}, ("scale",)),
        ({"score": 0.5, "tolerance": -0.1}, ("tolerance",)),
        ({"score": 0.5, "tolerance": float("inf")}, ("tolerance",)),
        ({"score": 0.5, "tolerance": float("nan")}, ("tolerance",)),
        ({"positive": "perhaps"}, ("positive",)),
        ({"positive": True, "of": -1}, ("of",)),
        ({"positive": True, "threshold": 0.5}, ("threshold",)),
    ],
)
def test_an_observation_that_says_nothing_is_refused(
    said: dict[str, Any], place: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as refused:
        asked(observed=[{"of": "nodule", **said}])
    for error in refused.value.errors():
        assert error["loc"][: 2 + len(place)] == ("observed", 0, *place)


def test_a_mismatch_is_not_allowed_unless_the_request_says_so() -> None:
    assert not asked().allow_mismatch
    assert asked(allow_mismatch=True).allow_mismatch


@pytest.mark.parametrize(
    ("box", "holds"),
    [
        ([0, 0, 1, 1], True),
        ([10.5, 20, 11, LONGEST], True),
        ([-1, 0, 1, 1], False),
        ([0, 0, 0, 1], False),
        ([0, 5, 1, 4], False),
        ([0, 0, LONGEST + 1, 1], False),
        ([0, 0, float("inf"), 1], False),
        ([float("nan"), 0, 1, 1], False),
        ([0, 0, 1], False),
        ([0, 0, 0, 1, 1, 1], True),
        ([0, 0, 0, 1, 1, 0], False),
        ([0, 0, 0, 1, 1], False),
    ],
)
def test_a_box_lies_in_an_image_and_is_no_line(box: list[float], *, holds: bool) -> None:
    request = {"annotations": [{"of": "nodule", "box": box}]}
    if holds:
        assert asked(**request).annotations[0].box == tuple(box)
        return
    with pytest.raises(ValidationError) as refused:
        asked(**request)
    assert {error["loc"][:3] for error in refused.value.errors()} == {("annotations", 0, "box")}


def test_a_request_cannot_be_changed() -> None:
    request = asked()
    with pytest.raises(ValidationError):
        request.study = "st_2"


FORMS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "whole": (1, ("1", 1.0, True)),
    "number": (1, ("1", True, [1])),
    "flag": (True, ("true", 1, "yes")),
}
"""What is one, and what only looks like it."""


def target(kind: str, **fields: Any) -> dict[str, Any]:
    return {"targets": [{"kind": kind, "of": 0, **fields}]}


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ("whole", lambda each: {"frame": each}),
        ("whole", lambda each: target("detection", number=each)),
        ("whole", lambda each: target("instance", slice=each)),
        ("whole", lambda each: target("instance", instance="in_0001", frame=each)),
        ("number", lambda each: {"targets": [{"kind": "time_to_event", "horizon": each}]}),
        ("number", lambda each: target("regression", reference=each)),
        ("number", lambda each: target("detection", at=[each, 0])),
        ("number", lambda each: target("detection", box=[0, 0, each, 2])),
        ("number", lambda each: target("segmentation", region={"kind": "point", "at": [0, each]})),
        ("number", lambda each: {"observed": [{"of": 0, "score": each}]}),
        ("number", lambda each: {"observed": [{"of": 0, "score": 0, "tolerance": each}]}),
        ("number", lambda each: {"annotations": [{"of": 0, "box": [0, 0, 2, each]}]}),
        ("flag", lambda each: {"allow_mismatch": each}),
        ("flag", lambda each: {"allow_uncertified": each}),
        ("flag", lambda each: {"observed": [{"of": 0, "positive": each}]}),
    ],
)
def test_what_only_looks_like_a_number_or_a_truth_value_is_none(form: str, field: Any) -> None:
    right, wrong = FORMS[form]
    asked(**field(right))
    for each in wrong:
        with pytest.raises(ValidationError):
            asked(**field(each))


@pytest.mark.parametrize("field", ["observed", "annotations"])
def test_an_index_is_a_whole_number(field: str) -> None:
    rest = {"observed": {"score": 0.5}, "annotations": {"box": [0, 0, 1, 1]}}[field]
    asked(**{field: [{"of": 1, **rest}]})
    for wrong in (True, 1.0, -1):
        with pytest.raises(ValidationError):
            asked(**{field: [{"of": wrong, **rest}]})
