"""A transformer's package, from loading it to maps that are checked."""

import time
from typing import Any

import pytest

from service.domain.job import State
from service.domain.value import Sha256
from service.packages import PackageRecord
from tests.support.hospital import register
from tests.support.small_model import CLASSES, SIDE, write_package
from tests.workers.line.conftest import House

METHODS = ["grad_cam", "ablation_cam", "attention_rollout", "gradient_attention", "saliency"]
GRID = SIDE // 8


@pytest.fixture(scope="module")
def transformer(house: House, tmp_path_factory: pytest.TempPathFactory) -> PackageRecord:
    """A small vision transformer that names no layer, served by the house's worker."""
    shape = {"classes": len(CLASSES), "image": [SIDE] * 2, "patch": 8, "width": 16, "depth": 2}
    record = register(
        house.backends.store,
        write_package(
            tmp_path_factory.mktemp("vit") / "package",
            name="transformer",
            architecture="vit",
            shape={**shape, "heads": 2},
            changes={"explain": {"baseline": 0.0}},
        ),
    )
    for _ in range(300):
        if record.package in served(house):
            return record
        time.sleep(0.1)
    raise AssertionError(house.backends.fleet.catalog())


def served(house: House) -> set[Sha256]:
    return {package for worker in house.backends.fleet.workers() for package in worker.packages}


def entry(house: House, record: PackageRecord) -> Any:
    (found,) = (
        each
        for each in house.backends.fleet.catalog().models
        if each.package == record.package and each.state == "ready"
    )
    return found


def test_its_layer_is_chosen_and_what_needs_a_relu_is_refused(
    house: House, transformer: PackageRecord
) -> None:
    told = entry(house, transformer)
    assert [(each.name, each.shape) for each in told.layers] == [
        ("blocks.1.norm1", (16, GRID, GRID))
    ]
    assert "names no layer" in told.layers[0].reason
    assert set(METHODS) <= set(told.methods)
    assert "no ReLU" in told.refused["guided_backprop"]
    assert "linear head" in told.refused["class_activation_map"]


def test_maps_on_patches_are_drawn_and_pass_every_check_that_runs_them_again(
    house: House, transformer: PackageRecord
) -> None:
    record, found = house.explain(
        house.image("tokens"), transformer, methods=METHODS, targets=["nodule"], checks="full"
    )
    assert record.state is State.SUCCEEDED
    assert [(each.method, each.status) for each in found.results] == [
        (name, "succeeded") for name in METHODS
    ]
    assert any(each.layer for each in found.results)
    for each in found.results:
        outcomes = {check.name: check.outcome for check in each.checks}
        assert each.layer is None or "names no layer" in each.layer.reason
        assert outcomes["integrity"] == "pass"
        assert outcomes["repeat"] == "pass"
