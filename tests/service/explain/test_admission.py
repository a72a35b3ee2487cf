"""Admission: the estimate of a job's cost, the choice of a worker, the canonical request."""

import json

import pytest

from service.admission import (
    canonical,
    check_against_catalog,
    estimated_cost,
    find_model,
    worker_for,
)
from service.domain.catalog import Catalog, LayerEntry
from service.domain.request import ExplanationRequest
from service.errors import InvalidParameter, NoWorker, UnknownModel
from service.fleet.base import WorkerRecord
from tests.support.fake_fleet import PACKAGES, method, model

CHEST = model("chest@1.0.0", PACKAGES["chest@1.0.0"])


def request(**changes):
    fields = {"study": "st_1", "model": "chest", "targets": ["nodule"], "methods": ["saliency"]}
    return ExplanationRequest.model_validate(fields | changes)


def worker(name, **changes):
    fields = {
        "id": name,
        "pool": name,
        "device": "cpu",
        "started": 1,
        "version": "1",
        "packages": ("a",),
        "running": 0,
        "slots": 2,
    }
    return WorkerRecord(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "milliseconds"),
    [
        ({}, 20),
        ({"targets": ["nodule", "effusion"]}, 40),
        ({"targets": ["above_threshold"]}, 40),
        ({"methods": ["integrated_gradients"]}, 640),
        ({"methods": ["saliency", "integrated_gradients"]}, 660),
        ({"methods": ["sweeping"]}, 1),
    ],
)
def test_cost_is_rows_times_seconds_with_gradients_per_target(changes, milliseconds):
    assert estimated_cost(request(**changes), CHEST) == milliseconds


def test_forward_rows_serve_all_targets_at_once():
    blackbox = model("b@1.0.0", "b", method_rows={"occlusion": {"forward": 100}})
    one = estimated_cost(request(methods=["occlusion"]), blackbox)
    many = estimated_cost(request(methods=["occlusion"], targets=[0, 1]), blackbox)
    assert one == many == 1000


def test_the_newest_version_is_the_greatest_number_not_the_last_word():
    versions = [model(f"chest@{each}", each) for each in ("1.9.0", "1.10.0", "1.2.0")]
    assert find_model("chest", versions).version == "1.10.0"
    assert find_model("chest@1.2.0", versions).version == "1.2.0"
    with pytest.raises(UnknownModel):
        find_model("ches", versions)


def test_a_target_layer_is_one_that_was_found_in_the_model():
    cam = method("grad_cam", layer={"type": "string"})
    layered = model(
        "l@1.0.0", "l", methods=("grad_cam",), layers=(LayerEntry(name="last", shape=(1,)),)
    )
    catalog = Catalog(methods=(cam,), models=(layered,))

    def ask(layer):
        choice = {"name": "grad_cam", "parameters": {"layer": layer}}
        return request(model="l", methods=[choice], artifacts=[])

    assert check_against_catalog(ask("last"), catalog) == layered
    with pytest.raises(InvalidParameter) as refusal:
        check_against_catalog(ask("first"), catalog)
    assert refusal.value.pointer == "/methods/0/parameters/layer"
    assert refusal.value.facts["layers"] == ["last"]


def test_the_least_busy_able_worker_is_chosen():
    workers = [
        worker("full", running=2),
        worker("half", running=1),
        worker("free", packages=("b",)),
        worker("leaving", draining=True),
    ]
    assert worker_for("a", workers).id == "half"
    assert worker_for("b", workers).id == "free"
    with pytest.raises(NoWorker):
        worker_for("c", workers)


def test_the_same_request_has_one_canonical_text():
    parameters = {"steps": 3, "path": "straight"}
    backwards = dict(reversed(parameters.items()))
    texts = {
        canonical(request(methods=[{"name": "integrated_gradients", "parameters": each}]))
        for each in (parameters, backwards)
    }
    (text,) = texts
    assert ExplanationRequest.model_validate_json(text) == request(
        methods=[{"name": "integrated_gradients", "parameters": parameters}]
    )
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
