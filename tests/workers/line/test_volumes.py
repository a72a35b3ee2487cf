"""A CT series through the whole line: the map's peak lies in the sphere that was planted."""

import gzip
import io
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from examples.spheres.dicom import enhanced, series
from examples.spheres.phantom import SHAPE, SPACING, draw
from service import paths
from service.backends import open_backends
from service.domain.job import State
from service.domain.trust import source_digest
from service.settings import QueueSettings, Settings, StoreSettings, WorkerSettings
from tests.support import redis_server
from tests.support.hospital import ask, document, ended, register, take_in
from tests.support.phantom_dicom import encoded, image
from tests.workers.line.conftest import working
from tests.workers.measures.test_recompute import recomputed

PACKAGE = Path(__file__).parents[3] / "models" / "sphere-phantom"
ASKED = [
    "grad_cam",
    "integrated_gradients",
    {"name": "occlusion", "parameters": {"window": 8}},
]
METHODS = ["grad_cam", "integrated_gradients", "occlusion"]
FORMATS = ["npy", "npz", "nifti", "dicom_sc", "json"]
PHANTOM = draw(4242, ["dense"])


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """A worker that serves the sphere model."""
    folder = tmp_path_factory.mktemp("clinic")
    with redis_server.running(redis_server.any_server()) as server:
        settings = Settings(
            queue=QueueSettings(url=server.url),
            store=StoreSettings(url=f"file://{folder}/store", reserve_bytes=0),
            worker=WorkerSettings(slots=1, scratch=folder / "scratch"),
        )
        backends = open_backends(settings)
        package = register(backends.store, PACKAGE)
        with working(settings, backends, {package.package}):
            yield backends, package
        backends.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("series")


def written(folder, datasets):
    files = []
    for number, each in enumerate(datasets):
        files.append(folder / f"{number:03d}.dcm")
        files[-1].write_bytes(encoded(each))
    return files


@pytest.fixture(scope="module")
def explained(clinic, folder):
    """One request on a study of the series, in no order, with a scout and a radiograph."""
    backends, package = clinic
    slices = series(PHANTOM, "line")
    scout = series(PHANTOM, "line")[0]
    scout.SOPInstanceUID, scout.ImageType = "2.25.4711", ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    study = take_in(
        backends.store, *written(folder, [*slices[::2], scout, image(), *slices[1::2][::-1]])
    )
    asked = {"targets": ["dense"], "methods": ASKED, "artifacts": FORMATS, "series": "se_0001"}
    record = ended(backends, ask(backends, package, study, **asked), 240)
    return backends, record, document(backends, record)


def artifact(backends, record, entry, format_):
    (found,) = [each for each in entry.artifacts if each.format == format_][:1]
    return backends.store.get(paths.artifact(str(record.result), found.name))


def test_a_series_is_explained_whole_and_what_is_none_of_it_is_told(explained):
    _, record, told = explained
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
    _, _, told = explained
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
    _, _, told = explained
    (entry,) = [each for each in told.results if each.method == method]
    middle = (np.array(SHAPE) - 1) / 2
    assert_in_sphere((np.array(entry.map.peak) - middle) * SPACING)
    outcomes = {each.name: each.outcome for each in entry.checks}
    assert outcomes["probe_bank"] == outcomes["integrity"] == "pass"


@pytest.mark.parametrize("method", METHODS)
def test_p_of_a_volume_can_be_computed_from_its_json_alone(explained, method):
    backends, record, told = explained
    (entry,) = [each for each in told.results if each.method == method]
    (bank,) = [each for each in entry.checks if each.name == "probe_bank"]
    r, p = recomputed(json.loads(artifact(backends, record, entry, "json")))
    assert r == pytest.approx(bank.values["r"], abs=1e-7)
    assert p == bank.values["p"]
    assert bank.values["transforms"] == 215


@pytest.mark.parametrize("method", METHODS)
def test_every_format_of_a_volume_places_the_evidence_in_the_patient(explained, method):
    backends, record, told = explained
    (entry,) = [each for each in told.results if each.method == method]
    assert not entry.omitted
    values = np.load(io.BytesIO(artifact(backends, record, entry, "npy")))
    data = artifact(backends, record, entry, "nifti")
    nifti = nibabel.Nifti1Image.from_bytes(gzip.decompress(data))
    found = np.unravel_index(int(nifti.get_fdata().argmax()), nifti.shape)
    right, front, up = (nifti.affine @ (*found[:3], 1))[:3]
    assert_in_sphere((up, -front, -right))
    assert values.ndim == 4


def test_an_enhanced_object_gives_the_same_answer(explained, clinic, folder):
    backends, package = clinic
    _, _, told = explained
    study = take_in(backends.store, *written(folder, [enhanced(PHANTOM, "line")]))
    record = ended(backends, ask(backends, package, study, targets=["dense"]), 120)
    again = document(backends, record)
    assert again.subject.volume.slices == SHAPE[0]
    assert again.predictions == told.predictions


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda slices: slices[:5], "too_few_slices"),
        (lambda slices: slices[:9] + slices[11:], "missing_slices"),
        (lambda slices: [*slices, _again(slices[3])], "duplicate_slices"),
        (lambda slices: [*slices[:-1], _broken(slices[-1])], "mixed_slices"),
    ],
)
def test_a_bad_series_fails_its_job_by_name(clinic, folder, spoil, code):
    backends, package = clinic
    slices = spoil(series(PHANTOM, "line"))
    study = take_in(backends.store, *written(folder, slices))
    record = ended(backends, ask(backends, package, study, targets=["dense"]), 120)
    assert (record.state, record.failure.code) == (State.FAILED, code)
    assert document(backends, record).failure.kind == "data"


def _again(dataset):
    dataset.SOPInstanceUID = "2.25.4712"
    return dataset


def _broken(dataset):
    dataset.PixelSpacing = [9, 9]
    return dataset
