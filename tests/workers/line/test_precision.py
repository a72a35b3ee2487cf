"""A job in bfloat16 from its refusal to its result, beside the same in float32."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service import paths
from service.backends import Backends
from service.domain.explanation import Explanation
from service.domain.job import Job, State
from service.domain.request import MethodChoice
from service.precisions import Wishes
from tests.support.hospital import TENANT, ask, document, ended, register, take_in
from tests.support.small_model import SIDE, picture, write_image, write_package
from tests.workers.certify.conftest import write_cases
from tests.workers.line.conftest import opened, working
from workers.certify.surveyor import Surveyor

METHODS = ["grad_cam", "occlusion"]
LIMIT = 60.0
Figures = tuple[float, float, float]


class Ward:
    """A worker whose one model has known cases."""

    def __init__(self, backends: Backends, folder: Path, package: Any) -> None:
        self.backends, self.folder, self.package = backends, folder, package

    def entry(self) -> Any:
        (found,) = self.backends.fleet.catalog().models
        return found

    def submit(self, **request: Any) -> Job:
        study = take_in(self.backends.store, write_image(self.folder / "i.dcm", picture(3)))
        return ask(self.backends, self.package, study, targets=["top1"], **request)

    def explain(self, **request: Any) -> Explanation:
        record = ended(self.backends, self.submit(**request))
        return document(self.backends, record)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("ward")
    with (
        pytest.MonkeyPatch.context() as patch,
        opened(folder) as (_, settings, backends),
    ):
        patch.setattr(Surveyor, "every", 0.2)
        write_package(folder / "package")
        write_cases(folder / "package", SIDE)
        package = register(backends.store, folder / "package")
        with working(settings, backends, {package.package}):
            yield Ward(backends, folder, package)


@pytest.fixture(scope="module")
def offered(ward: Ward) -> Ward:
    """The ward once its worker has measured what was wished for."""
    for name in METHODS:
        Wishes(ward.backends.store).enter(ward.package.package, MethodChoice(name=name))
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        found = {each.method: each.outcome for each in ward.entry().precisions}
        if found == dict.fromkeys(METHODS, "offered"):
            return ward
        time.sleep(0.1)
    raise AssertionError(ward.entry().precisions)


def test_a_worker_computes_nothing_in_a_precision_that_it_does_not_offer(ward: Ward) -> None:
    """A gateway's view of the fleet may be old: the worker asks itself again."""
    done = ward.explain(methods=["saliency"], precision="bfloat16")
    assert done.state == "failed"
    assert done.failure is not None
    assert done.failure.code == "precision_not_offered"
    assert done.failure.facts["reason"] == "not_measured"


def test_the_catalog_shows_what_was_measured(offered: Ward) -> None:
    entry = offered.entry()
    assert entry.refused_precisions == {}
    for each in entry.precisions:
        assert each.worst >= each.gate == 0.999
        assert (each.cases, each.device, each.synthetic) == (24, "cpu", True)


def test_the_result_says_what_it_was_computed_in(offered: Ward) -> None:
    done = offered.explain(
        methods=METHODS, precision="bfloat16", checks="full", artifacts=["json", "png"]
    )
    plain = offered.explain(methods=METHODS, checks="full", artifacts=["json"])
    assert done.state == plain.state == "succeeded"
    assert done.provenance is not None
    assert plain.provenance is not None
    assert (done.provenance.precision, plain.provenance.precision) == ("bfloat16", "float32")
    assert done.coherent
    assert done.predictions == plain.predictions
    measured = {each.method: each for each in offered.entry().precisions}
    for one, other in zip(done.results, plain.results, strict=True):
        assert one.trust is not None
        assert other.trust is not None
        assert one.trust.binding is not None
        assert one.trust.precision is not None
        assert one.trust.binding.precision == "bfloat16"
        assert one.trust.precision.id == measured[one.method].id
        assert one.trust.precision.worst == measured[one.method].worst
        assert other.trust.precision is None
        values, exact = values_of(offered, done, one), values_of(offered, plain, other)
        assert not np.array_equal(values, exact)
        assert np.corrcoef(values.ravel(), exact.ravel())[0, 1] > 0.999
        checks = {each.name: each for each in one.checks}
        assert checks["repeat"].outcome == "pass"
        assert (
            checks["probe_bank"].passes
            == {each.name: each for each in other.checks}["probe_bank"].passes
        )


def values_of(ward: Ward, explanation: Explanation, result: Any) -> Any:
    """Return a map's values out of its JSON, which must name the precision too."""
    (name,) = [each.name for each in result.artifacts if each.format == "json"]
    job = ward.backends.queue.get(TENANT, explanation.id)
    said = json.loads(ward.backends.store.get(paths.artifact(str(job.result), name)))
    assert said["provenance"]["precision"] == result.trust.binding.precision
    return np.array(said["map"]["values"])


def test_jobs_of_both_precisions_at_once_stay_apart(offered: Ward) -> None:
    alone = {
        precision: maps(offered.explain(methods=METHODS, precision=precision, checks="none"))
        for precision in ("float32", "bfloat16")
    }
    jobs = [
        (precision, offered.submit(methods=METHODS, precision=precision, checks="none"))
        for _ in range(3)
        for precision in alone
    ]
    apart = distance(alone["float32"], alone["bfloat16"])
    assert min(apart) > 0
    for precision, job in jobs:
        record = ended(offered.backends, job)
        assert record.state is State.SUCCEEDED
        found = maps(document(offered.backends, record))
        for own, other in zip(distance(found, alone[precision]), apart, strict=True):
            assert own < other / 20


def distance(these: list[Figures], those: list[Figures]) -> list[float]:
    """Return the largest difference between two maps' figures, map by map."""
    pairs = zip(these, those, strict=True)
    return [max(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in pairs]


def maps(explanation: Explanation) -> list[Figures]:
    """Return figures by which two maps are told apart."""
    return [
        (each.map.minimum, each.map.maximum, each.map.sum)
        for each in explanation.results
        if each.map
    ]
