"""A CT series through the whole line in windows: the maps lie in the sphere that was planted."""

from pathlib import Path

import numpy as np
import pytest

from examples.spheres.dicom import series
from examples.spheres.phantom import draw
from service.backends import open_backends
from service.domain.job import Stage, State
from service.settings import QueueSettings, Settings, StoreSettings, WorkerSettings
from tests.support import redis_server
from tests.support.hospital import ask, document, ended, register, take_in
from tests.support.phantom_dicom import encoded
from tests.workers.line.conftest import working

PACKAGE = Path(__file__).parents[3] / "models" / "spheres-unet"
PHANTOM = draw(4_343, ["dense", "hollow"])
METHODS = ["saliency", "grad_cam"]


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """One request about both findings, the second by its margin."""
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
            files = [folder / f"{number}.dcm" for number in range(PHANTOM.values.shape[0])]
            for file, each in zip(files, series(PHANTOM, "windows"), strict=True):
                file.write_bytes(encoded(each))
            targets = [
                {"kind": "segmentation", "of": "dense"},
                {"kind": "segmentation", "of": "hollow", "reduce": "margin"},
            ]
            study = take_in(backends.store, *files)
            asked = {"targets": targets, "methods": METHODS, "checks": "none"}
            job = ask(backends, package, study, artifacts=["npz"], **asked)
            record = ended(backends, job, 240)
            yield record, document(backends, record), backends.queue.events(job.tenant, job.id)
        backends.close()


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
