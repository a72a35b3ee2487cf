"""A model of several views that brings cases: its methods are certified, and maps supported."""

import shutil
import time

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from examples.breasts.dicom import study as views_of
from examples.breasts.drawing import SIDES, VIEWS, draw
from examples.breasts.train import prepared
from service.domain.job import State
from service.domain.trust import Flag, Grade
from tests.support.small_model import entry_of
from tests.workers.line.conftest import MODELS

ONE = draw(4_242, ["l_mlo"])
METHOD = "input_x_gradient"


def package(folder):
    """Write the bundled model of four views with cases that its training has not seen."""
    shutil.copytree(MODELS / "four-view-phantom", folder)
    drawn = [draw(88_000 + seed) for seed in range(40)]
    cases = {
        "images": torch.from_numpy(np.stack([prepared(each) for each in drawn])).half(),
        "labels": torch.tensor([[each.present(side) for side in SIDES] for each in drawn]).byte(),
    }
    save_file(cases, folder / "cases.safetensors")
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    fields["id"] = "certified"
    fields["files"].append(entry_of(folder, "cases.safetensors", "calibration", "safetensors"))
    fields["calibration"] = {"cases": "cases.safetensors", "synthetic": True, "title": "Drawn."}
    (folder / "model.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return [package(tmp_path_factory.mktemp("models") / "certified")]


@pytest.fixture(scope="module")
def certificate(clinic):
    """What the worker measured by itself."""
    for _ in range(600):
        (model,) = clinic.backends.fleet.catalog().models
        found = [each for each in model.certificates if each.method == METHOD]
        if found and found[0].outcome != "pending":
            return found[0]
        time.sleep(0.2)
    raise AssertionError(model.certificates)


def test_a_worker_certifies_methods_on_views_by_itself(certificate):
    assert (certificate.outcome, certificate.cases) == ("passed", 24)
    assert not certificate.calibration.weak


def test_the_map_of_the_view_with_the_mass_is_supported(clinic, certificate):
    study = clinic.take_in(views_of(ONE, "certified").values())
    record, told = clinic.explain("certified", study, targets=["left"], methods=[METHOD])
    assert record.state is State.SUCCEEDED, told.failure
    entries = {each.view.key: each for each in told.results}
    assert list(entries) == list(VIEWS)
    assert entries["l_mlo"].trust.grade is Grade.SUPPORTED
    assert Flag.SAME_FOR_EVERYBODY not in entries["l_mlo"].trust.flags
    for entry in entries.values():
        assert entry.trust.certificate.id == certificate.id
        checks = {each.name: each.outcome for each in entry.checks}
        assert checks["template"] in {"pass", "fail"}  # each view has a mean map of its own
        assert checks["margins"] == "pass"
