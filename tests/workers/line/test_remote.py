"""A model on a server of its own, from its package to maps, and when it changes."""

import logging
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.typing import NDArray
from pydicom import dcmread

from service.backends import Backends
from service.domain.catalog import ModelEntry
from service.domain.explanation import Explanation
from service.domain.job import Job, State
from service.packages import PackageRecord
from service.settings import RemoteSettings
from tests.support.exported import onnx_of, write_onnx_package, write_remote_package
from tests.support.hospital import ask, document, ended, register, take_in
from tests.support.inference_server import InferenceServer, serving
from tests.support.small_model import SIDE, network, picture, write_image
from tests.workers.line.conftest import opened, working
from workers import shelf

METHODS = ["occlusion", "rise"]


class Lab:
    """A worker that may ask one server, and the same model twice: there, and in a package."""

    def __init__(self, folder: Path, backends: Backends, server: InferenceServer) -> None:
        self.backends = backends
        self.server = server
        self.there = register(backends.store, write_remote_package(folder / "there"))
        self.here = register(backends.store, write_onnx_package(folder / "here"))
        self.image = write_image(folder / "image.dcm", picture(3))

    def entry(self, record: PackageRecord) -> ModelEntry | None:
        models = self.backends.fleet.catalog().models
        return next((each for each in models if each.package == record.package), None)

    def wait_for(self, state: str) -> ModelEntry:
        for _ in range(300):
            entry = self.entry(self.there)
            if entry is not None and entry.state == state:
                return entry
            time.sleep(0.1)
        raise AssertionError(self.entry(self.there))

    def ask(self, record: PackageRecord) -> Job:
        study = take_in(self.backends.store, self.image)
        asked = {"methods": METHODS, "targets": ["nodule"], "artifacts": ["json", "dicom_sr"]}
        return ask(self.backends, record, study, **asked)

    def explained(self, job: Job) -> Explanation:
        record = ended(self.backends, job)
        assert record.state is State.SUCCEEDED, record.failure
        return document(self.backends, record)

    def report(self, job: Job, explanation: Explanation) -> str:
        """Return what the structured report of the first map says, as text."""
        name = next(
            each.name for each in explanation.results[0].artifacts if each.format == "dicom_sr"
        )
        prefix = self.backends.queue.get(job.tenant, job.id).result
        return str(dcmread(BytesIO(self.backends.store.get(f"{prefix}/{name}"))))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    model = onnx_of(network(), torch.zeros(1, SIDE, SIDE))
    with (
        serving(InferenceServer(model)) as server,
        opened(folder, {"slots": 2}, remote=RemoteSettings(endpoints={"lab": server.url})) as (
            _,
            settings,
            backends,
        ),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(shelf, "AGAIN", 0.1)
        found = Lab(folder, backends, server)
        with working(settings, backends, {found.here.package, found.there.package}):
            yield found


def test_the_catalog_offers_what_scores_alone_can_give(lab: Lab) -> None:
    entry = lab.entry(lab.there)
    assert entry is not None
    assert set(entry.methods) == {
        "feature_ablation",
        "kernel_shap",
        "lime",
        "occlusion",
        "rise",
        "shapley_sampling",
    }
    assert "outputs alone" in entry.refused["grad_cam"]
    assert {each.outcome for each in entry.certificates} == {"not_certifiable"}


def test_maps_are_those_of_the_same_model_here_and_tell_whose_they_are(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    job = lab.ask(lab.there)
    there, here = lab.explained(job), lab.explained(lab.ask(lab.here))
    assert [each.method for each in there.results] == METHODS
    for ours, theirs in zip(here.results, there.results, strict=True):
        assert theirs.status == "succeeded"
        assert theirs.executed_on == "original"
        assert ours.map is not None
        assert theirs.map is not None
        assert theirs.map.maximum == pytest.approx(ours.map.maximum, abs=1e-5)
        assert theirs.map.sum == pytest.approx(ours.map.sum, rel=1e-3, abs=1e-4)
        assert theirs.map.peak == ours.map.peak
    assert there.model is not None
    assert there.provenance is not None
    assert there.model.weights is None
    assert there.provenance.weights is None
    assert there.provenance.remote is not None
    assert there.provenance.remote.model_version == "3"
    assert there.provenance.remote.server == "small 1.0"
    assert there.coherent
    assert "weights not known; model chest 3 of server lab" in lab.report(job, there)
    assert "Phantom^Small" not in caplog.text


@pytest.mark.parametrize("midway", [False, True])
def test_a_job_waits_for_a_server_that_was_silent(lab: Lab, midway: bool) -> None:
    lab.wait_for("ready")

    def fall_silent(outputs: NDArray[Any]) -> NDArray[Any]:
        if len(outputs) > 1:  # a method's rows; the image alone has been answered
            lab.server.status = 503
        return outputs

    lab.server.change, before = fall_silent, lab.server.change
    lab.server.status = None if midway else 503
    job = lab.ask(lab.there)
    entry = lab.wait_for("unavailable")
    assert entry.failure is not None
    assert entry.failure.code == "remote_unreachable"
    here = lab.explained(lab.ask(lab.here))  # other models are served meanwhile
    assert here.results[0].status == "succeeded"
    lab.server.change = before
    lab.server.status = None
    there = lab.explained(job)
    assert {each.status for each in there.results} == {"succeeded"}
    assert there.attempt == 1


def test_a_model_that_became_another_explains_nothing(lab: Lab) -> None:
    lab.wait_for("ready")
    before = lab.server.change
    lab.server.change = lambda outputs: outputs + 0.5
    job = lab.ask(lab.there)
    entry = lab.wait_for("unavailable")
    assert entry.failure is not None
    assert entry.failure.code == "model_unavailable"
    assert entry.failure.facts["difference"] == pytest.approx(0.5, abs=1e-3)
    lab.server.change = before  # it is looked at again, and the job is done by the old one
    assert {each.status for each in lab.explained(job).results} == {"succeeded"}
