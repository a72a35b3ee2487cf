"""An ONNX package, from loading it to maps of two kinds: the model's own, and its stand-in's."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from service.domain.job import State
from service.packages import PackageRecord
from tests.support.exported import write_onnx_package
from tests.support.hospital import register
from tests.workers.line.conftest import House

METHODS = ["grad_cam", "occlusion", "saliency"]


def served(house: House, folder: Path) -> PackageRecord:
    record = register(house.backends.store, folder)
    for _ in range(300):
        if any(record.package in each.packages for each in house.backends.fleet.workers()):
            return record
        time.sleep(0.1)
    raise AssertionError(house.backends.fleet.catalog())


@pytest.fixture(scope="module")
def exported(house: House, tmp_path_factory: pytest.TempPathFactory) -> PackageRecord:
    return served(house, write_onnx_package(tmp_path_factory.mktemp("onnx") / "package"))


def artifact(house: House, record: Any, name: str) -> Any:
    return json.loads(house.backends.store.get(f"{record.result}/{name}"))


def test_the_catalog_tells_what_is_computed_on_the_stand_in(
    house: House, exported: PackageRecord
) -> None:
    (entry,) = (
        each
        for each in house.backends.fleet.catalog().models
        if each.package == exported.package and each.state == "ready"
    )
    assert entry.surrogate is not None
    assert {"grad_cam", "saliency", "integrated_gradients"} <= set(entry.surrogate.methods)
    assert not {"occlusion", "rise", "score_cam"} & set(entry.surrogate.methods)
    assert entry.surrogate.difference < 1e-5
    assert entry.surrogate.tolerance == 1e-3
    assert "deep_lift" in entry.refused
    assert all("deepest" in layer.reason for layer in entry.layers)


def test_each_map_tells_on_what_it_was_computed(house: House, exported: PackageRecord) -> None:
    record, found = house.explain(
        house.image("both"),
        exported,
        methods=METHODS,
        targets=["nodule"],
        artifacts=["json"],
        checks="full",
    )
    assert record.state is State.SUCCEEDED
    told = {each.method: each for each in found.results}
    assert {name: each.executed_on for name, each in told.items()} == {
        "grad_cam": "surrogate",
        "occlusion": "original",
        "saliency": "surrogate",
    }
    for each in told.values():
        assert each.trust is not None
        assert ("surrogate" in each.trust.flags) == (each.executed_on == "surrogate")
        assert {check.name: check.outcome for check in each.checks}["repeat"] == "pass"
        (file,) = each.artifacts
        document = artifact(house, record, file.name)
        assert document["provenance"]["executed_on"] == each.executed_on
    assert found.model is not None
    assert found.model.runtime == "onnx"


def test_a_stand_in_that_says_something_else_of_the_image_explains_nothing(
    house: House, tmp_path: Path
) -> None:
    record = served(house, write_onnx_package(tmp_path / "package", version="1.0.1"))
    runtime: Any = house.worker._line.shelf.get(record.package).runtime
    for parameter in runtime._twin.model.parameters():
        parameter.data.mul_(1.1)  # unseen by what watches over the replica: it agreed on noise
    job, found = house.explain(
        house.image("differs"), record, methods=METHODS, targets=["nodule"], artifacts=["json"]
    )
    assert job.state is State.SUCCEEDED
    assert job.partial
    told = {each.method: each for each in found.results}
    assert told["occlusion"].status == "succeeded"
    for name in ("grad_cam", "saliency"):
        reason = told[name].reason
        assert reason is not None
        assert reason.code == "surrogate_disagrees"
        assert reason.facts["difference"] > reason.facts["tolerance"] == 1e-3
        assert not told[name].artifacts
