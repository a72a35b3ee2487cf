"""A CT series through the whole line in windows: the maps lie in the sphere that was planted."""

import numpy as np
import pytest

from examples.spheres.dicom import series
from examples.spheres.phantom import draw
from service.domain.job import Stage, State
from tests.workers.line.conftest import MODELS

MODEL = "spheres-unet"
PHANTOM = draw(4_343, ["dense", "hollow"])
METHODS = ["saliency", "grad_cam"]


@pytest.fixture(scope="module")
def served():
    return [MODELS / MODEL]


@pytest.fixture(scope="module")
def explained(clinic):
    """One request about both findings, the second by its margin."""
    targets = [
        {"kind": "segmentation", "of": "dense"},
        {"kind": "segmentation", "of": "hollow", "reduce": "margin"},
    ]
    asked = {"targets": targets, "methods": METHODS, "checks": "none", "artifacts": ["npz"]}
    study = clinic.take_in(series(PHANTOM, "windows"))
    record, told = clinic.explain(MODEL, study, **asked)
    return record, told, clinic.backends.queue.events(record.tenant, record.id)


def test_the_bundled_self_tests_would_notice_each_step_if_it_were_left_out(clinic):
    assert clinic.unnoticed == []


def test_the_spheres_are_outlined(explained):
    record, told, _ = explained
    assert record.state is State.SUCCEEDED, told.failure
    seen = {each.key: each.cells for each in told.predictions}
    for finding in ("dense", "hollow"):
        voxels = PHANTOM.mask(finding).sum() * 3.0 * 1.5 * 1.5 / 2.25**3
        assert seen[finding] == pytest.approx(voxels, rel=0.3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("finding", ["dense", "hollow"])
def test_every_map_points_at_its_sphere(explained, method, finding):
    _, told, _ = explained
    (entry,) = [
        each for each in told.results if each.method == method and each.target.about == finding
    ]
    assert entry.status == "succeeded", entry.reason
    away = np.linalg.norm(
        (np.argwhere(PHANTOM.mask(finding)) - np.array(entry.map.peak)) * (3.0, 1.5, 1.5), axis=1
    )
    assert away.min() <= 5  # mm: a cell of the coarsest map


def test_progress_was_told_within_the_stage(explained):
    _, _, events = explained
    shares = {each.progress for each in events if each.stage is Stage.ATTRIBUTE}
    assert len(shares) > 2
