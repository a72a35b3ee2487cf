"""Requests: shorthands, defaults, and what is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from service.domain.job import Priority
from service.domain.request import ExplanationRequest, MethodChoice
from service.domain.target import ClassTarget


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
        ({"targets": [{"of": "a", "score": "probability"}]}, "targets"),
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


def test_a_request_cannot_be_changed() -> None:
    request = asked()
    with pytest.raises(ValidationError):
        request.study = "st_2"
