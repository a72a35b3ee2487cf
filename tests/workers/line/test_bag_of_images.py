"""Single images of a study as a bag, through the whole line: each has its map, on itself."""

import io
import json

import numpy as np
import pydicom
import pytest

from examples.spheres.bag import FINDING
from service.domain.job import State
from tests.support import dciodvfy
from tests.support.image_bag import MASK, SHOWN, images, logit, write_image_bag

METHODS = [
    {"name": "integrated_gradients", "parameters": {"steps": 128}},
    "grad_cam",
    {"name": "occlusion", "parameters": {"window": 8, "stride": 8}},
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return [write_image_bag(tmp_path_factory.mktemp("models") / "images")]


@pytest.fixture(scope="module")
def study(clinic):
    other = images("bag", [0])[0]
    other.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    other.SOPInstanceUID += ".7"
    return clinic.take_in([*images("bag", SHOWN), other])


@pytest.fixture(scope="module")
def explained(clinic, study):
    formats = ["json", "dicom_sc", "dicom_ko", "dicom_sr", "png"]
    return clinic.explain(
        "images", study, targets=[FINDING], methods=METHODS, artifacts=formats, checks="full"
    )


def of(told, method):
    return {each.view.key: each for each in told.results if each.method == method}


def name_of(place):
    return f"in_{place + 1:04d}"


def test_each_image_has_a_map_and_what_the_score_loses_without_it(explained):
    record, told = explained
    assert record.state is State.SUCCEEDED, told.failure
    assert told.predictions[0].logit == pytest.approx(logit(SHOWN), abs=0.05)
    falls = {
        name_of(place): logit(SHOWN) - logit([each for each in SHOWN if each != number])
        for place, number in enumerate(SHOWN)
    }
    names = {name_of(place) for place in range(len(SHOWN))}
    for method in ("integrated_gradients", "grad_cam", "occlusion"):
        entries = of(told, method)
        assert set(entries) == names
        assert sum(each.view.share for each in entries.values()) == pytest.approx(1)
        for each in entries.values():
            found = {share.instance: share.relevance for share in each.instances}
            assert found == pytest.approx(falls, abs=0.05)
            assert all(share.slice is None for share in each.instances)
            assert sum(share.attention for share in each.instances) == pytest.approx(1, abs=1e-5)


def test_images_that_do_not_fit_are_told_with_their_reason(explained):
    _, told = explained
    assert [(each.instance, each.reasons) for each in told.subject.left_out] == [
        ("in_0006", ("image_types",))
    ]
    assert [each.instance for each in told.subject.views] == [name_of(k) for k in range(5)]


def test_maps_point_at_the_sphere_in_the_images_that_show_it(explained):
    _, told = explained
    for method in ("integrated_gradients", "grad_cam", "occlusion"):
        entries = of(told, method)
        shares = {key: each.view.share for key, each in entries.items()}
        for place in (1, 3):
            near = np.argwhere(MASK[SHOWN[place]]) - np.array(entries[name_of(place)].map.peak)
            assert np.linalg.norm(near, axis=1).min() <= 6
            assert shares[name_of(place)] > max(shares[name_of(other)] for other in (0, 2, 4))


def test_files_are_of_their_own_image_and_say_what_it_adds(clinic, study, explained, tmp_path):
    record, told = explained
    sources = {each.id: each for each in study.instances}
    entries, found = of(told, "integrated_gradients"), set()
    for key, entry in entries.items():
        assert all(f"{FINDING}-{key}" in each.name for each in entry.artifacts)
        for format_ in ("dicom_sc", "dicom_sr"):
            file = tmp_path / f"{key}.{format_}.dcm"
            file.write_bytes(clinic.artifact(record, entry, format_))
            assert not dciodvfy.complaints(format_, file)
        capture = pydicom.dcmread(tmp_path / f"{key}.dicom_sc.dcm")
        (source,) = capture.SourceImageSequence
        assert source.ReferencedSOPInstanceUID == sources[key].sop_instance_uid
        found.add(capture.SeriesInstanceUID)
        report = str(pydicom.dcmread(tmp_path / f"{key}.dicom_sr.dcm"))
        assert "Fall of the score without this image of the bag" in report
        document = json.loads(clinic.artifact(record, entry, "json"))
        assert document["view"]["key"] == key
        assert len(document["instances"]) == len(SHOWN)
    assert len(found) == len(SHOWN)


def test_key_images_are_those_without_which_the_score_falls_most(clinic, study, explained):
    record, told = explained
    uids = {each.id: each.sop_instance_uid for each in study.instances}
    for key, entry in of(told, "integrated_gradients").items():
        best = [each.instance for each in entry.instances[:2] if each.relevance > 0]
        left = {each.format: each.reason.facts["reason"] for each in entry.omitted}
        assert left == ({} if key in best else {"dicom_ko": "not_relevant"})
        if key in best:
            chosen = pydicom.dcmread(io.BytesIO(clinic.artifact(record, entry, "dicom_ko")))
            (evidence,) = chosen.CurrentRequestedProcedureEvidenceSequence
            (referenced,) = evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence
            assert referenced.ReferencedSOPInstanceUID == uids[key]


def test_what_adds_up_adds_up_over_all_images(explained):
    for entry in of(explained[1], "integrated_gradients").values():
        checks = {each.name: each for each in entry.checks}
        assert checks["completeness"].values["relative_residual"] < 0.05
        assert checks["repeat"].outcome == "pass"


def test_some_images_may_be_named_and_one_of_them_shown_alone(clinic, study):
    named = [name_of(4), name_of(1)]
    targets = [{"kind": "instance", "of": FINDING, "instance": name_of(1)}]
    record, told = clinic.explain(
        "images", study, targets=targets, methods=["hires_cam"], instances=named
    )
    assert record.state is State.SUCCEEDED, told.failure
    (entry,) = told.results
    assert entry.view.key == name_of(1)
    assert entry.view.label == "Image 1 of 2"
    assert entry.target.score == pytest.approx(logit([SHOWN[1], SHOWN[4]]), abs=0.05)
    assert {each.instance for each in entry.instances} == set(named)


def test_the_catalog_tells_how_many_images_make_a_bag(clinic):
    (entry,) = [each for each in clinic.backends.fleet.catalog().models if each.name == "images"]
    assert (entry.images.least, entry.images.most) == (2, 8)
    assert entry.target_kinds == ("class", "contrast", "instance")
    assert {"occlusion", "rise", "grad_cam", "kernel_shap", "hires_cam"} <= set(entry.methods)
