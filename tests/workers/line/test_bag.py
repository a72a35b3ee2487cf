"""A bag of slices through the whole line: the slices that the score needs are those planted."""

import io
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import yaml

from examples.spheres.bag import FINDING
from examples.spheres.dicom import enhanced, series
from examples.spheres.phantom import SHAPE, draw
from service import paths
from service.backends import open_backends
from service.domain.job import State
from service.settings import QueueSettings, Settings, StoreSettings, WorkerSettings
from tests.support import redis_server
from tests.support.hospital import ask, document, ended, register, take_in
from tests.support.phantom_dicom import encoded
from tests.workers.line.conftest import working

PACKAGE = Path(__file__).parents[3] / "models" / "sphere-bag-phantom"
PHANTOM = draw(4_242, ["dense", "hollow"])
BEARING = set(np.flatnonzero(PHANTOM.mask(FINDING).any((1, 2))) + 1)
"""Slices with the sphere, counted from 1."""

METHODS = ["hires_cam", "integrated_gradients"]


def blind(folder):
    """Write the package with a layer named as attention that gives none."""
    for file in PACKAGE.rglob("*"):
        if file.is_file():
            to = folder / file.relative_to(PACKAGE)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(file.read_bytes())
    manifest = yaml.safe_load((folder / "model.yaml").read_text())
    manifest["id"] = "blind"
    manifest["inputs"][0]["bag"]["attention"] = {"name": "features"}
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    return folder


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """A worker that serves the model, and was given one that does not show what it names."""
    folder = tmp_path_factory.mktemp("clinic")
    with redis_server.running(redis_server.any_server()) as server:
        settings = Settings(
            queue=QueueSettings(url=server.url),
            store=StoreSettings(url=f"file://{folder}/store", reserve_bytes=0),
            worker=WorkerSettings(slots=1, scratch=folder / "scratch"),
        )
        backends = open_backends(settings)
        register(backends.store, blind(folder / "blind"))
        package = register(backends.store, PACKAGE)
        with working(settings, backends, {package.package}):
            yield backends, package, folder
        backends.close()


def explain(clinic, datasets, **asked):
    backends, package, folder = clinic
    files = []
    for number, each in enumerate(datasets):
        files.append(folder / f"{number:03d}.dcm")
        files[-1].write_bytes(encoded(each))
    study = take_in(backends.store, *files)
    record = ended(backends, ask(backends, package, study, **asked), 120)
    return record, document(backends, record), study


@pytest.fixture(scope="module")
def explained(clinic):
    turned = series(PHANTOM, "bag")[::-1]
    return explain(
        clinic,
        turned,
        targets=[FINDING],
        methods=METHODS,
        artifacts=["json", "dicom_sc", "dicom_ko", "png"],
        series="se_0001",
    )


def artifact(clinic, record, entry, format_):
    (file,) = [each for each in entry.artifacts if each.format == format_]
    return clinic[0].store.get(paths.artifact(str(record.result), file.name))


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
    capture = pydicom.dcmread(io.BytesIO(artifact(clinic, record, entry, "dicom_sc")))
    assert int(capture.NumberOfFrames) == len(best) < SHAPE[0]
    found = json.loads(artifact(clinic, record, entry, "json"))["instances"]
    assert [each["slice"] for each in found] == [each.slice for each in entry.instances]
    mask = PHANTOM.mask(FINDING)
    place = np.argwhere(mask) - np.array(entry.map.peak)
    assert np.linalg.norm(place, axis=1).min() <= 6
    assert entry.trust.grade != "supported"


def test_an_enhanced_objects_instances_are_frames(clinic):
    record, told, _ = explain(clinic, [enhanced(PHANTOM, "bag")], targets=[FINDING])
    assert record.state is State.SUCCEEDED, told.failure
    first = told.results[0].instances[0]
    assert first.frame == first.slice
    assert first.slice in BEARING


def test_the_catalog_says_which_methods_would_mix_instances(clinic):
    backends, package, _ = clinic
    models = {each.name: each for each in backends.fleet.catalog().models}
    served = models[package.name]
    for method in ("occlusion", "rise", "kernel_shap"):
        assert method not in served.methods
        assert "instances of a bag" in served.refused[method]
    assert "alike in every instance" in served.refused["grad_cam"]
    assert set(METHODS) <= set(served.methods)
    assert [each.name for each in served.layers] == ["peaks"]


def test_a_model_that_does_not_show_the_attention_it_names_is_unavailable(clinic):
    for _ in range(300):
        found = [each for each in clinic[0].fleet.catalog().models if each.name == "blind"]
        if found:
            break
    (entry,) = found
    assert entry.state == "unavailable"
    assert entry.failure.facts["field"] == "/inputs/0/bag"
