"""A CT series through the whole line: the map's peak lies in the sphere that was planted."""

import gzip
import io
import json

import nibabel
import numpy as np
import pytest

from examples.spheres.dicom import enhanced, series
from examples.spheres.phantom import SHAPE, SPACING, draw
from service import paths
from service.domain.job import State
from service.domain.study import Skipped
from service.domain.trust import source_digest
from tests.support.phantom_dicom import image
from tests.workers.line.conftest import MODELS
from tests.workers.measures.test_recompute import recomputed

MODEL = "sphere-phantom"
ASKED = [
    "grad_cam",
    "integrated_gradients",
    {"name": "occlusion", "parameters": {"window": 8}},
]
METHODS = ["grad_cam", "integrated_gradients", "occlusion"]
FORMATS = ["npy", "npz", "nifti", "dicom_sc", "json"]
PHANTOM = draw(4242, ["dense"])


@pytest.fixture(scope="module")
def served():
    return [MODELS / MODEL]


@pytest.fixture(scope="module")
def explained(clinic):
    """One request on a study of the series, in no order, with a scout and a radiograph."""
    slices = series(PHANTOM, "line")
    scout = series(PHANTOM, "line")[0]
    scout.SOPInstanceUID, scout.ImageType = "2.25.4711", ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    study = clinic.take_in([*slices[::2], scout, image(), *slices[1::2][::-1]])
    asked = {"targets": ["dense"], "methods": ASKED, "artifacts": FORMATS, "series": "se_0001"}
    return clinic.explain(MODEL, study, **asked)


def test_the_bundled_self_tests_would_notice_each_step_if_it_were_left_out(clinic):
    assert clinic.unnoticed == []


def test_a_series_is_explained_whole_and_what_is_none_of_it_is_told(explained):
    record, told = explained
    assert record.state is State.SUCCEEDED, told.failure
    volume = told.subject.volume
    assert (volume.geometry, volume.slices, volume.plane) == ("regular", SHAPE[0], "axial")
    assert volume.spacing == pytest.approx(SPACING)
    assert told.subject.series == "se_0001"
    reasons = {each.instance: each.reasons for each in told.subject.left_out}
    assert reasons == {
        "in_0013": ("localizer",),
        "in_0014": ("modalities", "image_types"),
    }
    assert {each.key: each.above_threshold for each in told.predictions} == {
        "dense": True,
        "hollow": False,
    }


def test_the_maps_are_bound_to_every_slice(explained):
    _, told = explained
    digests = [each.sha256 for each in told.provenance.instances]
    assert len(digests) == SHAPE[0]
    assert {each.trust.binding.source for each in told.results} == {source_digest(digests)}
    assert told.coherent


def assert_in_sphere(place):
    """Require a place, in mm from the center, in the sphere or a cell of the coarsest map off."""
    (sphere,) = PHANTOM.spheres
    assert np.linalg.norm(np.subtract(place, sphere.center)) <= sphere.radius + 9


@pytest.mark.parametrize("method", METHODS)
def test_the_peak_lies_in_the_planted_sphere(explained, method):
    _, told = explained
    (entry,) = [each for each in told.results if each.method == method]
    middle = (np.array(SHAPE) - 1) / 2
    assert_in_sphere((np.array(entry.map.peak) - middle) * SPACING)
    outcomes = {each.name: each.outcome for each in entry.checks}
    assert outcomes["probe_bank"] == outcomes["integrity"] == "pass"


@pytest.mark.parametrize("method", METHODS)
def test_p_of_a_volume_can_be_computed_from_its_json_alone(clinic, explained, method):
    record, told = explained
    (entry,) = [each for each in told.results if each.method == method]
    (bank,) = [each for each in entry.checks if each.name == "probe_bank"]
    r, p = recomputed(json.loads(clinic.artifact(record, entry, "json")))
    assert r == pytest.approx(bank.values["r"], abs=1e-7)
    assert p == bank.values["p"]
    assert bank.values["transforms"] == 215


@pytest.mark.parametrize("method", METHODS)
def test_every_format_of_a_volume_places_the_evidence_in_the_patient(clinic, explained, method):
    record, told = explained
    (entry,) = [each for each in told.results if each.method == method]
    assert not entry.omitted
    values = np.load(io.BytesIO(clinic.artifact(record, entry, "npy")))
    data = clinic.artifact(record, entry, "nifti")
    nifti = nibabel.Nifti1Image.from_bytes(gzip.decompress(data))
    found = np.unravel_index(int(nifti.get_fdata().argmax()), nifti.shape)
    right, front, up = (nifti.affine @ (*found[:3], 1))[:3]
    assert_in_sphere((up, -front, -right))
    assert values.ndim == 4


def test_an_enhanced_object_gives_the_same_answer(clinic, explained):
    _, told = explained
    study = clinic.take_in([enhanced(PHANTOM, "line")])
    _, again = clinic.explain(MODEL, study, targets=["dense"])
    assert again.subject.volume.slices == SHAPE[0]
    assert again.predictions == told.predictions


def test_a_volume_is_told_to_come_from_a_study_with_images_that_were_not_read(clinic, explained):
    _, whole = explained
    assert "unread_images" not in whole.warnings
    study = clinic.take_in(series(PHANTOM, "line")[1:])
    for code, told in {"no_pixel_data": False, "truncated": True}.items():
        skipped = (Skipped(part=1, code=code, detail="It was not read."),)
        changed = study.model_copy(update={"skipped": skipped})
        record = paths.study_record(study.tenant, study.id)
        clinic.backends.store.put(record, changed.model_dump_json().encode())
        asked = {"targets": ["dense"], "methods": ["grad_cam"], "checks": "none"}
        _, found = clinic.explain(MODEL, changed, **asked)
        assert found.state == "succeeded"
        assert ("unread_images" in found.warnings) is told


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda slices: slices[:5], "too_few_slices"),
        (lambda slices: slices[:9] + slices[11:], "missing_slices"),
        (lambda slices: [*slices, _again(slices[3])], "duplicate_slices"),
        (lambda slices: [*slices[:-1], _broken(slices[-1])], "mixed_slices"),
    ],
)
def test_a_bad_series_fails_its_job_by_name(clinic, spoil, code):
    study = clinic.take_in(spoil(series(PHANTOM, "line")))
    record, told = clinic.explain(MODEL, study, targets=["dense"])
    assert (record.state, record.failure.code) == (State.FAILED, code)
    assert told.failure.kind == "data"


def _again(dataset):
    dataset.SOPInstanceUID = "2.25.4712"
    return dataset


def _broken(dataset):
    dataset.PixelSpacing = [9, 9]
    return dataset
