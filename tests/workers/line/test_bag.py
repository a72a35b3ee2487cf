"""A bag of slices through the whole line: the slices that the score needs are those planted."""

import io
import json
import shutil
import time

import numpy as np
import pydicom
import pytest
import yaml

from examples.spheres.bag import FINDING
from examples.spheres.dicom import enhanced, series
from examples.spheres.phantom import SHAPE, draw
from service.domain.job import State
from tests.support.hospital import register
from tests.workers.line.conftest import MODELS

MODEL = "sphere-bag-phantom"
PHANTOM = draw(4_242, ["dense", "hollow"])
BEARING = set(np.flatnonzero(PHANTOM.mask(FINDING).any((1, 2))) + 1)
"""Slices with the sphere, counted from 1."""

METHODS = ["hires_cam", "integrated_gradients"]


def blind(folder):
    """Write the package with a layer named as attention that gives none."""
    shutil.copytree(MODELS / MODEL, folder)
    manifest = yaml.safe_load((folder / "model.yaml").read_text())
    manifest["id"] = "blind"
    manifest["inputs"][0]["bag"]["attention"] = {"name": "features"}
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    return folder


@pytest.fixture(scope="module")
def served():
    return [MODELS / MODEL]


@pytest.fixture(scope="module")
def explained(clinic):
    study = clinic.take_in(series(PHANTOM, "bag")[::-1])
    formats = ["json", "dicom_sc", "dicom_ko", "png"]
    asked = {"targets": [FINDING], "methods": METHODS, "artifacts": formats, "series": "se_0001"}
    return *clinic.explain(MODEL, study, **asked), study


def test_the_slices_that_the_score_needs_are_those_with_the_sphere(explained):
    record, told, _ = explained
    assert record.state is State.SUCCEEDED, told.failure
    (score,) = [each.logit for each in told.predictions]
    assert score > 0
    for entry in told.results:
        shares = entry.instances
        assert {each.slice for each in shares} == set(range(1, SHAPE[0] + 1))
        falls = [each.relevance for each in shares]
        assert falls == sorted(falls, reverse=True)
        assert {each.slice for each in shares[:2]} <= BEARING
        others = [each.relevance for each in shares if each.slice not in BEARING]
        assert max(others) < 0.1 * falls[0]


def test_each_share_names_its_slice_in_the_patients_order_and_its_object(explained):
    _, told, study = explained
    uids = {each.id: each.sop_instance_uid for each in study.instances}
    order = [each.SOPInstanceUID for each in series(PHANTOM, "bag")]
    for each in told.results[0].instances:
        assert uids[each.instance] == order[each.slice - 1]
        assert each.frame is None


def test_attention_is_told_apart_from_relevance(explained):
    shares = explained[1].results[0].instances
    assert sum(each.attention for each in shares) == pytest.approx(1, abs=1e-5)
    assert max(shares, key=lambda each: each.attention).slice in BEARING
    assert [each.attention for each in shares] != [each.relevance for each in shares]


@pytest.mark.parametrize("method", METHODS)
def test_pictures_show_the_most_relevant_instances_alone(clinic, explained, method):
    record, told, _ = explained
    (entry,) = [each for each in told.results if each.method == method]
    best = [each for each in entry.instances[:8] if each.relevance > 0]
    capture = pydicom.dcmread(io.BytesIO(clinic.artifact(record, entry, "dicom_sc")))
    assert int(capture.NumberOfFrames) == len(best) < SHAPE[0]
    found = json.loads(clinic.artifact(record, entry, "json"))["instances"]
    assert [each["slice"] for each in found] == [each.slice for each in entry.instances]
    mask = PHANTOM.mask(FINDING)
    place = np.argwhere(mask) - np.array(entry.map.peak)
    assert np.linalg.norm(place, axis=1).min() <= 6
    assert entry.trust.grade != "supported"


def test_an_enhanced_objects_instances_are_frames(clinic):
    study = clinic.take_in([enhanced(PHANTOM, "bag")])
    record, told = clinic.explain(MODEL, study, targets=[FINDING])
    assert record.state is State.SUCCEEDED, told.failure
    first = told.results[0].instances[0]
    assert first.frame == first.slice
    assert first.slice in BEARING


def test_the_catalog_says_which_methods_would_mix_instances(clinic):
    models = {each.name: each for each in clinic.backends.fleet.catalog().models}
    served = models[MODEL]
    for method in ("occlusion", "rise", "kernel_shap"):
        assert method not in served.methods
        assert "instances of a bag" in served.refused[method]
    assert "alike in every instance" in served.refused["grad_cam"]
    assert set(METHODS) <= set(served.methods)
    assert [each.name for each in served.layers] == ["peaks"]
    assert served.target_kinds == ("class", "contrast", "instance")


def test_a_model_that_does_not_show_the_attention_it_names_is_unavailable(clinic):
    register(clinic.backends.store, blind(clinic.folder / "blind"))
    for _ in range(300):
        found = [each for each in clinic.backends.fleet.catalog().models if each.name == "blind"]
        if found:
            break
        time.sleep(0.1)
    (entry,) = found
    assert entry.state == "unavailable"
    assert entry.failure.facts["field"] == "/inputs/0/bag"


@pytest.fixture(scope="module")
def alone(clinic, explained):
    """The map of the slice that the score needs most, and of one far from the sphere."""
    best = explained[1].results[0].instances[0]
    far = min(set(range(1, SHAPE[0] + 1)) - BEARING)
    targets = [
        {"kind": "instance", "of": FINDING, "slice": best.slice},
        {"kind": "instance", "of": FINDING, "slice": far, "score": "probability"},
        {"kind": "instance", "of": FINDING, "instance": best.instance},
    ]
    formats = ["json", "dicom_sc", "dicom_ko", "dicom_sr", "png"]
    asked = {"targets": targets, "methods": METHODS, "artifacts": formats, "checks": "full"}
    ends = np.argwhere(PHANTOM.mask(FINDING))
    box = [*ends.min(0).tolist(), *(ends.max(0) + 1).tolist()]
    asked["annotations"] = [{"of": FINDING, "box": box}]
    return *clinic.explain(MODEL, explained[2], series="se_0001", **asked), best, far


@pytest.mark.parametrize("method", METHODS)
def test_one_slices_map_is_that_part_of_the_bags(clinic, explained, alone, method):
    whole, told, _ = explained
    record, found, best, _ = alone
    assert record.state is State.SUCCEEDED, found.failure
    (entire,) = [each for each in told.results if each.method == method]
    (entry, _) = [each for each in found.results if each.method == method]  # named twice, once
    assert entry.target.key == f"{FINDING}-slice-{best.slice}"
    assert entry.target.score == pytest.approx(entire.target.score, abs=1e-4)
    values = np.array(json.loads(clinic.artifact(whole, entire, "json"))["map"]["values"])
    own = np.array(json.loads(clinic.artifact(record, entry, "json"))["map"]["values"])
    place = best.slice - 1
    np.testing.assert_allclose(own[:, place], values[:, place], rtol=1e-3, atol=1e-5)
    assert not np.delete(own, place, axis=1).any()
    masses = np.abs(values.sum(0)).sum((1, 2))
    assert entry.view.share == pytest.approx(masses[place] / masses.sum(), rel=1e-4)
    assert round(entry.map.peak[0]) == place
    falls = [{each.slice: each.relevance for each in of.instances} for of in (entry, entire)]
    assert falls[0] == pytest.approx(falls[1], abs=1e-4)  # batches of other sizes round otherwise


@pytest.mark.parametrize("method", METHODS)
def test_one_slices_map_is_held_against_its_own_places(explained, alone, method):
    _, found, _, _ = alone
    entry, other = (each for each in found.results if each.method == method)
    checks = {each.name: each for each in entry.checks}
    assert checks["integrity"].outcome == "pass"
    assert checks["repeat"].outcome == "pass"
    assert checks["probe_bank"].values["r"] > 0.2  # a map of the sphere, and places of its slice
    assert checks["localization"].outcome == "pass"  # the peak is in the reader's box of the sphere
    assert {each.name: each for each in other.checks}["localization"].outcome == "not_applicable"
    if method == "integrated_gradients":  # what adds up does so with what the other slices hold
        (entire,) = [each for each in explained[1].results if each.method == method]
        (whole,) = [each for each in entire.checks if each.name == "completeness"]
        assert checks["completeness"].values == pytest.approx(whole.values, rel=0.01)
    assert other.trust.grade != "supported"


def test_pictures_of_one_slice_show_it_alone_and_scaled_as_the_bag(clinic, alone):
    record, found, best, far = alone
    for entry in found.results:
        number = far if entry.target.slice == far else best.slice
        capture = pydicom.dcmread(io.BytesIO(clinic.artifact(record, entry, "dicom_sc")))
        assert int(capture.get("NumberOfFrames", 1)) == 1
        assert entry.view.label == f"Slice {number} of {SHAPE[0]}"
    report = pydicom.dcmread(io.BytesIO(clinic.artifact(record, found.results[0], "dicom_sr")))
    assert "Fall of the score without this image of the bag" in str(report)
    faint = [each for each in found.results if each.target.slice == far]
    for entry in faint:
        drawn = json.loads(clinic.artifact(record, entry, "json"))["display"]
        assert drawn["joint_scale"] or not drawn["drawn"]
        assert entry.target.key == f"{FINDING}-probability-slice-{far}"
        assert entry.target.again.score == "probability"


@pytest.mark.parametrize("which", [{"slice": SHAPE[0] + 1}, {"instance": "in_0999"}])
def test_a_slice_that_is_not_there_fails_by_its_name(clinic, explained, which):
    target = {"kind": "instance", "of": FINDING, **which}
    asked = {"targets": [target], "methods": METHODS[:1], "series": "se_0001"}
    record, _ = clinic.explain(MODEL, explained[2], **asked)
    assert record.failure.code == "invalid_target"


def test_a_slice_of_an_enhanced_object_is_named_by_its_frame(clinic):
    study = clinic.take_in([enhanced(PHANTOM, "bag")])
    number = int(max(BEARING))
    target = {"kind": "instance", "of": FINDING, "instance": "in_0001", "frame": number}
    record, told = clinic.explain(MODEL, study, targets=[target], methods=METHODS[:1])
    assert record.state is State.SUCCEEDED, told.failure
    assert told.results[0].target.slice == number
