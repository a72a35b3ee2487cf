"""A detector through the whole line, as weights and as ONNX: boxes found, and explained."""

import io
import json

import numpy as np
import pydicom
import pytest

from examples.planted.dicom import plate
from examples.planted.pictures import shapes
from service.domain.job import State
from service.domain.parity import Parity
from tests.support.detector import OF_SHAPES, write_exported_detector

PICTURE = shapes(4_774, {"cyst": 2, "stone": 1})
CYSTS = [box for shape, box in PICTURE.boxes if shape == "cyst"]
METHODS = [
    "layer_cam",
    "integrated_gradients",
    {"name": "occlusion", "parameters": {"window": 8, "stride": 4}},
]
BY_LOGIT = {"layer_cam", "integrated_gradients"}
AWAY = 4
"""Source pixels that a peak may lie beside its box: what tells an edge lies on both sides."""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The detector in both forms."""
    return [
        OF_SHAPES.package,
        write_exported_detector(tmp_path_factory.mktemp("graph") / "exported"),
    ]


def explain(clinic, model, picture=PICTURE, **asked):
    study = clinic.take_in([plate(picture, "detected", "KIDNEY")])
    return clinic.explain(model, study, **asked)


TARGETS = [
    {"kind": "detection", "of": "cyst"},
    {"kind": "detection", "of": "cyst", "number": 1},
    {"kind": "detection", "of": "stone", "box": PICTURE.boxes[2][1]},
]


@pytest.fixture(scope="module")
def detected(clinic):
    return explain(
        clinic,
        "detector-phantom",
        targets=TARGETS,
        methods=METHODS,
        artifacts=["json", "png", "dicom_sc", "dicom_seg", "dicom_sr"],
        observed=[{"of": "cyst", "positive": True}],
    )


def near(box, planted):
    return np.abs(np.subtract(box, planted)).max() <= 3


def test_every_planted_shape_is_listed_with_its_box_in_the_source(detected):
    record, told = detected
    assert record.state is State.SUCCEEDED, told.failure
    cyst, stone = told.predictions
    for planted in CYSTS:
        assert sum(near(each.box, planted) for each in cyst.detections) == 1
    assert len(cyst.detections) == 2
    (found,) = stone.detections
    assert near(found.box, PICTURE.boxes[2][1])
    assert cyst.probability == max(each.probability for each in cyst.detections)
    assert told.parity.outcome is Parity.MATCHED


@pytest.mark.parametrize("method", ["layer_cam", "integrated_gradients", "occlusion"])
def test_the_map_of_a_box_peaks_in_it(detected, method):
    _, told = detected
    entries = [each for each in told.results if each.method == method]
    found = [*told.predictions[0].detections, *told.predictions[1].detections]
    for entry, detection in zip(entries, found, strict=True):
        assert entry.status == "succeeded", entry.reason
        assert entry.target.box == detection.box
        assert entry.target.probability == pytest.approx(detection.probability)
        top, left, bottom, right = detection.box
        row, column = entry.map.peak
        assert top - AWAY <= row < bottom + AWAY
        assert left - AWAY <= column < right + AWAY
        assert not entry.omitted
    keys = [each.target.key for each in entries]
    assert keys[:2] == ["cyst", "cyst-1"]
    assert keys[2].startswith("stone-box-")


def test_each_method_is_judged_by_the_number_that_it_explains(detected):
    _, told = detected
    for entry in told.results:
        logit = entry.target.quantity.startswith("log odds")
        assert logit == (entry.method in BY_LOGIT)
        assert (entry.target.score > 1) == logit
        outcomes = {each.name: each.outcome for each in entry.checks}
        assert outcomes["integrity"] == "pass"
        assert outcomes["target_specific"] == "not_applicable"
        assert outcomes["probe_bank"] in ("pass", "weak")
        assert "uncertified" in entry.trust.flags
        assert entry.trust.grade != "supported"
    complete = [e for e in told.results if e.method == "integrated_gradients"]
    for entry in complete:
        assert {c.name: c.outcome for c in entry.checks}["completeness"] == "pass"


def test_what_is_not_found_is_a_success_without_a_map(clinic):
    nowhere = {"kind": "detection", "of": "cyst", "box": [0, 0, 4, 4]}
    asked = [{"kind": "detection", "of": "stone", "number": 3}, nowhere, TARGETS[0]]
    record, told = explain(clinic, "detector-phantom", targets=asked, methods=["saliency"])
    assert record.state is State.SUCCEEDED
    assert [each.status for each in told.results] == ["succeeded", "skipped", "skipped"]
    first, second = (each.reason for each in told.results[1:])
    assert "not so many" in first.detail
    assert "overlaps" in second.detail


def test_the_catalog_says_why_methods_are_refused(clinic):
    entries = {each.name: each for each in clinic.backends.fleet.catalog().models}
    for name in ("detector-phantom", "exported-detector"):
        assert entries[name].target_kinds == ("detection",)
        assert "one box of several" in entries[name].refused["grad_cam"]
        assert {"layer_cam", "occlusion", "integrated_gradients"} <= set(entries[name].methods)
    assert {"saliency", "layer_cam"} <= set(entries["exported-detector"].surrogate.methods)
    assert "occlusion" not in entries["exported-detector"].surrogate.methods


def test_an_export_with_boxes_and_probabilities_says_and_shows_the_same(clinic, detected):
    _, told = detected
    record, again = explain(clinic, "exported", targets=TARGETS, methods=METHODS[1:])
    assert record.state is State.SUCCEEDED, again.failure
    for one, other in zip(told.predictions, again.predictions, strict=True):
        assert other.logit == pytest.approx(one.logit, abs=1e-3)
        assert [e.box for e in other.detections] == [e.box for e in one.detections]
    known = {(e.method, e.target.key): e for e in told.results}
    for entry in again.results:
        before = known[entry.method, entry.target.key]
        assert entry.status == "succeeded", entry.reason
        assert entry.executed_on == ("original" if entry.method == "occlusion" else "surrogate")
        assert entry.target.score == pytest.approx(before.target.score, abs=1e-3)
        assert entry.map.peak == before.map.peak


@pytest.mark.parametrize("package", ["detector-phantom", "exported"])
def test_where_an_edge_lies_is_explained_by_what_is_seen_there(clinic, package):
    """Hiding a place far from the box moves no edge; the evidence lies about the box."""
    targets = [{"kind": "detection", "of": "stone", "score": edge} for edge in ("left", "bottom")]
    record, told = explain(
        clinic,
        package,
        targets=targets,
        methods=METHODS[1:],
        artifacts=["json", "png", "dicom_sr"],
    )
    assert record.state is State.SUCCEEDED, told.failure
    top, left, bottom, right = told.predictions[1].detections[0].box
    for entry in told.results:
        edge = entry.target.key.rpartition("-")[2]
        assert entry.target.score == pytest.approx(left if edge == "left" else bottom, abs=0.06)
        assert entry.target.quantity == f"{edge} edge of the box"
        assert entry.target.unit == "{pixels}"
        assert entry.trust.certificate.reason == "target_is_no_class"
        values = np.abs(json.loads(clinic.artifact(record, entry, "json"))["map"]["values"]).sum(0)
        cells = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), -1)
        places = cells @ np.array(entry.map.affine)[:2, :2].T + np.array(entry.map.affine)[:2, 2]
        near = (places >= np.array([top, left]) - 20) & (places < np.array([bottom, right]) + 20)
        assert values[near.all(-1)].sum() > 0.8 * values.sum()
        report = str(pydicom.dcmread(io.BytesIO(clinic.artifact(record, entry, "dicom_sr"))))
        assert f"Score that is explained ({edge} edge of the box)" in report
