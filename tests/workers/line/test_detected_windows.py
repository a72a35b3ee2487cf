"""A detector that is given a volume in windows, through the whole line, as it is and as ONNX."""

import json

import numpy as np
import pytest

from examples.spheres.dicom import series
from examples.spheres.phantom import SHAPE, draw
from service.domain.job import Stage, State
from tests.support.detector import demand_the_same, write_exported_detector, write_windowed_detector

MODEL = "windowed"
PHANTOM = draw(5_362, ["dense", "dense", "hollow"])
FIRST, _, HOLLOW = PHANTOM.spheres
OCCLUSION = {"name": "occlusion", "parameters": {"window": 10, "stride": 8}}
METHODS = ["layer_cam", "integrated_gradients", "occlusion"]
TARGETS = [
    {"kind": "detection", "of": "dense", "box": FIRST.box},
    {"kind": "detection", "of": "hollow"},
]
AWAY = (2.0, 4.0, 4.0)
"""Voxels that a peak may lie beside its box: what tells an edge lies on both sides."""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The detector in both forms."""
    folder = tmp_path_factory.mktemp("windows")
    shipped = write_windowed_detector(folder / MODEL)
    return [shipped.package, write_exported_detector(folder / "exported", shipped)]


@pytest.fixture(scope="module")
def study(clinic):
    return clinic.take_in(series(PHANTOM, "detector in windows"))


@pytest.fixture(scope="module")
def detected(clinic, study):
    return clinic.explain(
        MODEL,
        study,
        targets=TARGETS,
        methods=[*METHODS[:2], OCCLUSION],
        artifacts=["json", "dicom_sr"],
        grid="native",
    )


def test_the_catalog_offers_it_and_tells_what_it_costs(clinic):
    entries = {each.name: each for each in clinic.backends.fleet.catalog().models}
    entry = entries["windowed-detector"]
    assert entry.state == "ready", entry.failure
    assert {"layer_cam", "occlusion", "deep_lift"} <= set(entry.methods)
    assert "one box of several" in entry.refused["grad_cam"]
    assert entry.method_rows["saliency"] == {"forward": 0, "gradient": 1}
    exported = entries["exported-detector"]
    assert exported.state == "ready", exported.failure
    assert "integrated_gradients" in exported.surrogate.methods


@pytest.mark.parametrize("method", METHODS)
def test_the_map_of_a_box_peaks_in_it_and_is_empty_outside_of_its_windows(clinic, detected, method):
    record, told = detected
    assert record.state is State.SUCCEEDED, told.failure
    entries = [each for each in told.results if each.method == method]
    for entry, sphere in zip(entries, (FIRST, HOLLOW), strict=True):
        assert entry.status == "succeeded", entry.reason
        box, windows = np.array(entry.target.box), entry.target.windows
        assert np.abs(box - sphere.box).max() <= 3
        assert ((box[:3] - AWAY <= entry.map.peak) & (entry.map.peak < box[3:] + AWAY)).all()
        assert windows.of == 8
        assert (windows.count == 1) == (method != "occlusion")
        assert {each.name: each.outcome for each in entry.checks}["integrity"] == "pass"
        document = json.loads(clinic.artifact(record, entry, "json"))
        assert tuple(document["target"]["windows"]["box"]) == windows.box
        values, affine = np.array(document["map"]["values"]), np.array(document["map"]["affine"])
        cells = np.stack(np.meshgrid(*map(np.arange, values.shape[1:]), indexing="ij"), -1)
        places = cells @ affine[:3, :3].T + affine[:3, 3] + 0.5
        low, high = np.split(np.array(windows.box), 2)
        reach = np.abs(affine[:3, :3]).sum(1)  # a cell that a window's end cuts
        outside = ((places < low - reach) | (places > high + reach)).any(-1)
        assert outside.any() == (windows.count < 8)
        assert not values[:, outside].any()
        assert values.any()


def test_a_report_says_in_how_much_of_the_volume_a_box_is_explained(clinic, detected):
    record, told = detected
    (entry, *_) = told.results
    assert b"explained in 1 of 8" in clinic.artifact(record, entry, "dicom_sr")


def test_progress_is_told_by_window(clinic, detected):
    record, _ = detected
    events = clinic.backends.queue.events(record.tenant, record.id)
    assert len({each.progress for each in events if each.stage is Stage.ATTRIBUTE}) > 4


def test_what_was_missed_can_be_asked_about_by_its_place(clinic, study):
    place = [length / 2 for length in SHAPE]
    asked = [{"kind": "detection", "of": "hollow", "at": place}]
    record, told = clinic.explain(MODEL, study, targets=asked, methods=["saliency"])
    assert record.state is State.SUCCEEDED
    (entry,) = told.results
    low, high = np.split(np.array(entry.target.box), 2)
    assert ((low <= np.add(place, 0.5)) & (np.add(place, 0.5) < high)).all()


def test_an_onnx_file_with_boxes_and_probabilities_says_and_shows_the_same(clinic, study, detected):
    _, told = detected
    asked = {"targets": TARGETS, "methods": [METHODS[1], OCCLUSION]}
    record, again = clinic.explain("exported", study, **asked)
    assert record.state is State.SUCCEEDED, again.failure
    demand_the_same(told, again)
