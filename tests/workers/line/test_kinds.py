"""A regression and a segmentation through the whole line: maps point at what was planted."""

import json

import numpy as np
import pytest

from examples.planted.dicom import plate
from examples.planted.pictures import hand, shapes
from service.domain.canonical import digest_of
from service.domain.job import State
from service.domain.parity import Parity
from tests.support.segmentations import segmentation
from tests.workers.line.conftest import MODELS

OCCLUSION = {"name": "occlusion", "parameters": {"window": 8}}
HAND = hand(4_711, 180.0)
SHAPES = shapes(4_712, {"cyst": 1, "stone": 1})
AWAY = 6
"""Source pixels that a peak may lie beside what was planted: a cell of the coarsest map."""


@pytest.fixture(scope="module")
def served():
    return [MODELS / "bone-age-phantom", MODELS / "shape-phantom"]


def explain(clinic, model, picture, **asked):
    part = "HAND" if model == "bone-age-phantom" else "KIDNEY"
    study = clinic.take_in([plate(picture, f"line {model}", part)])
    return clinic.explain(model, study, **asked)


def beside(mask, place):
    """Tell how far a place lies from a mask, in pixels."""
    return np.linalg.norm(np.argwhere(mask) - np.array(place), axis=1).min()


# ---------------------------------------------------------------------- regression


@pytest.fixture(scope="module")
def aged(clinic):
    return explain(
        clinic,
        "bone-age-phantom",
        HAND,
        targets=[{"kind": "regression", "of": "bone_age", "reference": 120}],
        methods=["grad_cam", "integrated_gradients", "input_x_gradient", OCCLUSION],
        artifacts=["json", "png", "dicom_sc", "dicom_sr"],
        observed=[{"of": "bone_age", "score": 180, "scale": "value", "tolerance": 20}],
    )


def test_the_bundled_self_tests_would_notice_each_step_if_it_were_left_out(clinic):
    assert clinic.unnoticed == []


def test_a_value_is_predicted_in_its_unit_and_compared(aged):
    record, told = aged
    assert record.state is State.SUCCEEDED, told.failure
    (said,) = told.predictions
    assert said.unit == "mo"
    assert abs(said.value - 180) < 20
    assert told.parity.outcome is Parity.MATCHED


@pytest.mark.parametrize(
    "method", ["grad_cam", "integrated_gradients", "input_x_gradient", "occlusion"]
)
def test_the_map_of_an_age_points_at_the_growth_center(aged, method):
    _, told = aged
    (entry,) = [each for each in told.results if each.method == method]
    assert entry.target.score == pytest.approx(told.predictions[0].value - 120)
    assert beside(HAND.masks["growth_center"], entry.map.peak) <= AWAY
    assert entry.trust.grade != "supported"  # no certificate was made for values
    assert "uncertified" in entry.trust.flags
    assert entry.trust.certificate.outcome == "not_certifiable"
    assert entry.trust.certificate.reason == "target_is_no_class"
    assert entry.trust.calibration is None
    outcomes = {each.name: each.outcome for each in entry.checks}
    assert outcomes["integrity"] == "pass"
    assert outcomes["target_specific"] == "not_applicable"
    assert not entry.omitted


def test_evidence_for_a_lower_value_is_the_same_map_with_its_sign_turned(clinic):
    asked = {"methods": ["integrated_gradients"], "artifacts": ["json"]}
    both = [{"kind": "regression", "of": 0, "direction": each} for each in ("increase", "decrease")]
    record, told = explain(clinic, "bone-age-phantom", HAND, targets=both, **asked)
    maps = []
    for entry in told.results:
        found = json.loads(clinic.artifact(record, entry, "json"))
        maps.append(np.array(found["map"]["values"]))
    np.testing.assert_allclose(maps[0], -maps[1], rtol=1e-4, atol=1e-6)


# -------------------------------------------------------------------- segmentation


@pytest.fixture(scope="module")
def segmented(clinic):
    return explain(
        clinic,
        "shape-phantom",
        SHAPES,
        targets=[
            {"kind": "segmentation", "of": "cyst"},
            {"kind": "segmentation", "of": "stone", "reduce": "margin"},
        ],
        methods=["grad_cam", "integrated_gradients", OCCLUSION],
        artifacts=["json", "png", "dicom_sc", "dicom_sr"],
    )


def test_a_segmentation_says_what_it_saw(segmented):
    record, told = segmented
    assert record.state is State.SUCCEEDED, told.failure
    seen = {each.key: each.share for each in told.predictions}
    for shape, mask in SHAPES.masks.items():
        assert seen[shape] == pytest.approx(mask.mean(), rel=0.1)


@pytest.mark.parametrize("method", ["grad_cam", "integrated_gradients", "occlusion"])
def test_the_map_of_a_region_points_at_the_shape(segmented, method):
    _, told = segmented
    entries = [each for each in told.results if each.method == method]
    assert [each.target.key for each in entries] == ["cyst", "stone-margin"]
    for entry in entries:
        assert entry.status == "succeeded", entry.reason
        mask = SHAPES.masks[entry.target.about]
        assert beside(mask, entry.map.peak) <= AWAY
        assert entry.target.region.cells == pytest.approx(mask.sum() / 4, rel=0.1)
        assert entry.trust.grade != "supported"
        assert entry.trust.certificate.reason == "target_is_no_class"
        assert not entry.omitted


def marked(name, mask):
    """Return a segmentation of a mask on the picture of that name."""
    return segmentation([plate(SHAPES, f"line {name}", "KIDNEY")], mask[None])


@pytest.mark.parametrize("named", [1, "Lesion", None])
def test_a_region_that_somebody_else_marked_is_explained(clinic, named):
    marks = marked("marked", SHAPES.masks["stone"])
    study = clinic.take_in([marks, plate(SHAPES, "line marked", "KIDNEY")])
    region = {"kind": "segment", "instance": "in_0001", "segment": named}
    target = {"kind": "segmentation", "of": "stone", "region": region}
    formats = ["json", "png", "dicom_sc", "dicom_sr"]
    asked = {"targets": [target], "methods": ["grad_cam"], "artifacts": formats}
    _, told = clinic.explain("shape-phantom", study, **asked)
    (entry,) = told.results
    assert entry.status == "succeeded", told.failure
    assert not entry.omitted
    assert entry.target.key == "stone-segment-in_0001-1"
    assert entry.target.region.kind == "segment"
    assert entry.target.region.cells == pytest.approx(SHAPES.masks["stone"].sum() / 4, rel=0.1)
    assert entry.target.again.region.segment == 1
    marks_digest, image_digest = (each.sha256 for each in study.instances)
    assert entry.target.region.segmentation == marks_digest
    assert entry.trust.binding.source == digest_of([image_digest, marks_digest])
    assert beside(SHAPES.masks["stone"], entry.map.peak) <= AWAY
    assert told.subject.instance == "in_0002"


def test_a_region_of_another_image_is_refused(clinic):
    marks = marked("elsewhere", SHAPES.masks["stone"])
    study = clinic.take_in([plate(SHAPES, "line unmarked", "KIDNEY"), marks])
    region = {"kind": "segment", "instance": "in_0002", "segment": 1}
    target = {"kind": "segmentation", "of": "stone", "region": region}
    record, _ = clinic.explain("shape-phantom", study, targets=[target])
    assert record.failure.code == "invalid_target"
    assert record.failure.facts["reason"] == "not_of_this_image"
    assert record.failure.facts["field"] == "/targets/0/region"


def test_a_region_that_holds_no_pixel_is_refused_before_the_model_is_asked(clinic):
    study = clinic.take_in([plate(SHAPES, "line thin", "KIDNEY")])
    region = {"kind": "box", "box": [60, 70, 60.2, 70.2]}
    target = {"kind": "segmentation", "of": "stone", "region": region}
    record, told = clinic.explain("shape-phantom", study, targets=[target])
    assert record.failure.code == "invalid_target"
    assert record.failure.facts["reason"] == "empty_region"
    assert "attribute" not in told.timings


def test_a_shape_that_is_not_there_is_a_success_without_a_map(clinic):
    empty = shapes(4_713, {"stone": 1})
    both = [{"kind": "segmentation", "of": each} for each in ("cyst", "stone")]
    record, told = explain(clinic, "shape-phantom", empty, targets=both, methods=["grad_cam"])
    assert record.state is State.SUCCEEDED
    found = {each.target and each.target.key: each.status for each in told.results}
    assert found == {"stone": "succeeded", None: "skipped"}


def test_the_receptive_field_of_a_point_lies_about_the_point(clinic):
    point = {"kind": "segmentation", "of": "cyst", "region": {"kind": "point", "at": [60, 70]}}
    _, told = explain(clinic, "shape-phantom", SHAPES, targets=[point], methods=["saliency"])
    (entry,) = told.results
    assert np.linalg.norm(np.subtract(entry.map.peak, (60, 70))) <= 12
