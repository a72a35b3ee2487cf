"""Certificates of a model of several views, held against the slow form of their numbers."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr

from examples.breasts.drawing import SIDES, VIEWS, draw
from examples.breasts.train import NETWORK, prepared
from service.domain.grid import Grid
from service.manifests import read_manifest
from tests.support.packages import entry
from workers.catalog import ready_model
from workers.certify.cases import read_cases
from workers.certify.ground import prepare
from workers.certify.maps import SIDE
from workers.certify.measure import Measurement
from workers.certify.turns import Turns
from workers.document import model_ref
from workers.measures.bearing import brought
from workers.methods.base import METHODS, ModelFacts
from workers.model import Model
from workers.precisions import Precisions
from workers.records import Records, Subject
from workers.replicas import Replicas
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

torch.set_num_threads(1)

SOURCE = Path(__file__).parents[3] / "models" / "four-view-phantom"
PACKAGE = "f" * 64
SHAPE = (1, len(VIEWS), 64, 64)
DRAWN = [draw(88_000 + seed) for seed in range(60)]


def network():
    made = NETWORK.build()
    made.load_state_dict(load_file(SOURCE / "weights.safetensors"))
    return made.eval()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    package = folder / PACKAGE
    package.mkdir()
    cases = {
        "images": torch.from_numpy(np.stack([prepared(each) for each in DRAWN])).half(),
        "labels": torch.tensor([[each.present(side) for side in SIDES] for each in DRAWN]).byte(),
    }
    save_file(cases, package / "cases.safetensors")
    fields = yaml.safe_load((SOURCE / "model.yaml").read_text())
    fields["files"].append(entry(package, "calibration", "safetensors", "cases.safetensors"))
    fields["calibration"] = {"cases": "cases.safetensors", "synthetic": True, "title": "Drawn."}
    manifest = read_manifest(yaml.safe_dump(fields).encode())
    runtime = TorchRuntime(network(), SHAPE, ("peaks",))
    facts = ModelFacts(layers=("peaks",), sizes=SHAPE[1:])
    subject = Subject(manifest, "float32")
    made = Model(
        manifest=manifest,
        ref=model_ref(manifest, PACKAGE),
        facts=facts,
        entry=ready_model(manifest, PACKAGE, runtime.probed, SHAPE, facts),
        records=Records(subject),
        precisions=Precisions(subject, "cpu"),
        replicas=Replicas(runtime),
    )
    return made, package


@pytest.fixture(scope="module")
def turns():
    scheduler = Scheduler()
    owner = threading.Thread(target=scheduler.run_forever)
    owner.start()
    yield Turns(scheduler, threading.Event(), lambda: False)
    scheduler.stop(drain=False)
    owner.join(20)


@pytest.fixture(scope="module")
def ground(model, turns):
    made, package = model
    turns.wanted = lambda: True
    return prepare(made, package, turns)


def record(model, ground, turns, name, **parameters):
    made, _ = model
    method = METHODS[name].model_validate(parameters).settled(made.facts)
    return Measurement(method, ground, turns).record(made.records.subject)


@pytest.fixture(scope="module")
def measured(model, ground, turns):
    return record(model, ground, turns, "hires_cam")


def hires(case, target):
    """HiResCAM of all views by autograd: the layer's output times its gradient, by view."""
    made, found = network(), []
    handle = made.peaks.register_forward_hook(lambda *given: found.append(given[2]))
    score = made(case.image[None].requires_grad_())[0, target]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, found[0])
    return (gradient * found[0])[0].sum(0).detach().numpy()


def ranks(maps):
    """The maps of all views as numbers to be ranked, on the common grid."""
    grid = Grid.partition(maps.shape[1:], SHAPE[2:])
    return np.stack([brought(each[None], grid, SHAPE[2:], SIDE) for each in maps]).ravel()


def test_maps_of_another_class_are_compared_over_all_views(model, measured):
    made, package = model
    cases = read_cases(package / "cases.safetensors", made.manifest, SHAPE)
    pairs = [
        spearmanr(ranks(hires(case, case.target)), ranks(hires(case, case.other))).statistic
        for case in cases
        if case.other is not None
    ]
    found = measured.certificate.similarities["other_class"]
    assert found.pairs == len(pairs)
    assert found.value == pytest.approx(np.mean(pairs), abs=5e-3)


def test_a_method_that_follows_weights_and_class_is_certified_and_the_control_fails(measured):
    certificate = measured.certificate
    assert certificate.outcome in {"passed", "weakly_specific"}
    assert abs(certificate.similarities["all_random"].value) < 0.5
    assert certificate.cases == 24
    assert {"all_random", "head_random", "other_class"} <= set(certificate.similarities)
    assert certificate.control["all_random"].value == 1


def test_a_method_that_knows_no_class_fails(model, ground, turns):
    certificate = record(model, ground, turns, "eigen_cam").certificate
    assert certificate.outcome == "failed"
    assert certificate.similarities["other_class"].value > 0.9


def test_most_findings_are_supported_where_the_method_sees_them(measured):
    calibration = measured.calibration
    assert calibration.supported >= 0.8
    names = {f"{side}-{view}" for side in SIDES for view in VIEWS}
    assert set(calibration.templates) == names
