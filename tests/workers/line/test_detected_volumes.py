"""A detector for volumes through the whole line: boxes found in a series, placed in the patient,
explained, and told in every kind of object."""

import io
import json

import numpy as np
import pydicom
import pytest

from examples.spheres.dicom import series
from examples.spheres.phantom import SHAPE, SPACING, draw
from service.domain.job import State
from service.domain.parity import Parity
from tests.support.detector import OF_SPHERES, demand_the_same, write_exported_detector

MODEL = "sphere-detector-phantom"
PHANTOM = draw(5_362, ["dense", "dense", "hollow"])
SPHERES = dict(zip(("first", "second", "hollow"), PHANTOM.spheres, strict=True))
OCCLUSION = {"name": "occlusion", "parameters": {"window": 10, "stride": 8}}
METHODS = ["layer_cam", "integrated_gradients", "occlusion"]
TARGETS = [
    {"kind": "detection", "of": "dense", "box": SPHERES["first"].box},
    {"kind": "detection", "of": "hollow"},
]
AWAY = (2.0, 4.0, 4.0)
"""Voxels that a peak may lie beside its box: what tells an edge lies on both sides."""


def drawn(name, sphere):
    """A reader's box about a sphere, with room for what tells its edge."""
    low, high = np.split(np.array(sphere.box), 2)
    box = np.concatenate([np.maximum(low - AWAY, 0), np.minimum(high + AWAY, SHAPE)])
    return {"of": name, "box": box.tolist()}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The detector in both forms."""
    folder = tmp_path_factory.mktemp("graph") / "exported"
    return [OF_SPHERES.package, write_exported_detector(folder, OF_SPHERES)]


@pytest.fixture(scope="module")
def study(clinic):
    return clinic.take_in(series(PHANTOM, "boxes"))


@pytest.fixture(scope="module")
def detected(clinic, study):
    return clinic.explain(
        MODEL,
        study,
        targets=TARGETS,
        methods=[*METHODS[:2], OCCLUSION],
        artifacts=["json", "png", "dicom_sc", "dicom_seg", "dicom_sr", "dicom_ko"],
        observed=[{"of": "dense", "positive": True}],
        annotations=[drawn("dense", SPHERES["first"]), drawn("hollow", SPHERES["first"])],
    )


def test_every_sphere_is_listed_in_voxels_and_in_the_patient(detected):
    record, told = detected
    assert record.state is State.SUCCEEDED, told.failure
    dense, hollow = told.predictions
    assert (len(dense.detections), len(hollow.detections)) == (2, 1)
    for each in (*dense.detections, *hollow.detections):
        away = [
            np.linalg.norm(np.subtract(_patient(s), each.patient.center)) for s in PHANTOM.spheres
        ]
        sphere = PHANTOM.spheres[int(np.argmin(away))]
        assert min(away) <= 3
        assert np.abs(np.subtract(each.patient.size, 2 * sphere.radius)).max() <= 4.5
        assert np.abs(np.subtract(each.box, sphere.box) * (*SPACING, *SPACING)).max() <= 4.5
    assert told.parity.outcome is Parity.MATCHED


def _patient(sphere):
    """Where the series puts a sphere's center: x to the left along columns, z up along slices."""
    slices, rows, columns = sphere.center
    return columns, rows, slices


@pytest.mark.parametrize("method", METHODS)
def test_the_map_of_a_box_peaks_in_it(detected, method):
    _, told = detected
    entries = [each for each in told.results if each.method == method]
    for entry, sphere in zip(entries, (SPHERES["first"], SPHERES["hollow"]), strict=True):
        assert entry.status == "succeeded", entry.reason
        assert not entry.omitted
        low, high = np.split(np.array(entry.target.box), 2)
        assert ((low - AWAY <= entry.map.peak) & (entry.map.peak < high + AWAY)).all()
        assert np.abs(np.subtract(entry.target.box, sphere.box)).max() <= 3
        assert entry.target.patient.size == pytest.approx((high - low) * SPACING, abs=0.02)
        outcomes = {each.name: each.outcome for each in entry.checks}
        assert outcomes["integrity"] == "pass"
        # the reader marked the first sphere, under both names
        assert outcomes["localization"] == ("pass" if sphere is SPHERES["first"] else "fail")
        assert outcomes["probe_bank"] in ("pass", "weak")
        assert "uncertified" in entry.trust.flags


@pytest.mark.parametrize("method", METHODS)
def test_every_object_tells_of_the_same_box(clinic, detected, method):
    record, told = detected
    entry = next(each for each in told.results if each.method == method)
    box, patient = entry.target.box, entry.target.patient
    document = json.loads(clinic.artifact(record, entry, "json"))
    assert tuple(document["target"]["box"]) == box
    assert tuple(document["target"]["patient"]["center"]) == patient.center
    report = _read(clinic, record, entry, "dicom_sr")
    numbers = dict(_numbers(report))
    assert (numbers["box_first_slice"], numbers["box_end_slice"]) == box[::3]
    assert tuple(numbers[f"box_center_{each}"] for each in "xyz") == patient.center
    capture = _read(clinic, record, entry, "dicom_sc")
    framed = [page for page in capture.PageNumberVector if round(box[0]) < page <= round(box[3])]
    assert framed  # of the slices with the most evidence
    _, top, left, _, bottom, right = map(round, box)
    for page, frame in zip(capture.PageNumberVector, capture.pixel_array, strict=True):
        edges = (frame[[top, bottom - 1], left:right], frame[top:bottom, [left, right - 1]])
        assert (page in framed) == all((each == 255).all() for each in edges)
    keys = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in _read(clinic, record, entry, "dicom_ko").ContentSequence
        if item.ValueType == "IMAGE"
    }
    slices = [each.SOPInstanceUID for each in series(PHANTOM, "boxes")]
    middle = round((box[0] + box[3]) / 2)
    assert keys & set(slices[middle - 1 : middle + 1])
    segments = _read(clinic, record, entry, "dicom_seg")
    center = np.mean([_place(each) for each in segments.PerFrameFunctionalGroupsSequence])
    assert abs(center - patient.center[2]) <= 9


def _place(group):
    """Height of a segmentation's frame in the patient, in mm."""
    return group.PlanePositionSequence[0].ImagePositionPatient[2]


def _read(clinic, record, entry, format_):
    return pydicom.dcmread(io.BytesIO(clinic.artifact(record, entry, format_)))


def _numbers(item):
    """Every number of a report, by the value of its code."""
    for each in item.get("ContentSequence", ()):
        if each.ValueType == "NUM":
            value = each.MeasuredValueSequence[0].NumericValue
            yield each.ConceptNameCodeSequence[0].CodeValue, float(value)
        yield from _numbers(each)


def test_what_was_missed_can_be_asked_about_by_its_place(clinic, study):
    sphere = SPHERES["second"]
    place = (np.array(SHAPE) - 1) / 2 + np.array(sphere.center) / SPACING
    nowhere = {"kind": "detection", "of": "hollow", "box": [0, 0, 0, 2, 3, 3]}
    asked = [{"kind": "detection", "of": "hollow", "at": place.tolist()}, nowhere]
    record, told = clinic.explain(MODEL, study, targets=asked, methods=["saliency"])
    assert record.state is State.SUCCEEDED
    there, missing = told.results
    assert not there.target.above_threshold  # the sphere is dense, and so no hollow one is found
    low, high = np.split(np.array(there.target.box), 2)
    assert ((low <= place + 0.5) & (place + 0.5 < high)).all()
    assert (missing.status, missing.reason.code) == ("skipped", "nothing_above_threshold")


def test_the_catalog_says_why_methods_are_refused(clinic):
    entries = {each.name: each for each in clinic.backends.fleet.catalog().models}
    for name in (MODEL, "exported-detector"):
        assert entries[name].target_kinds == ("detection",)
        assert "one box of several" in entries[name].refused["grad_cam"]
        assert {"layer_cam", "occlusion", "integrated_gradients"} <= set(entries[name].methods)


def test_an_export_with_boxes_and_probabilities_says_and_shows_the_same(clinic, study, detected):
    _, told = detected
    asked = {"targets": TARGETS, "methods": [METHODS[1], OCCLUSION]}
    record, again = clinic.explain("exported", study, **asked)
    assert record.state is State.SUCCEEDED, again.failure
    demand_the_same(told, again)
