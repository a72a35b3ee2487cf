"""Measuring bfloat16: near enough or refused, once for all workers, never in the way."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from typing_extensions import override

from service.domain.precision import PrecisionRecord
from service.domain.request import MethodChoice
from service.errors.requests import PrecisionNotOffered
from service.precisions import MOST, PrecisionRecords, Wishes
from service.settings import StoreSettings
from service.store.objects import open_store
from service.telemetry import Log
from tests.support.engine import logits
from tests.support.small_model import LAYER, network
from tests.workers.certify.conftest import PACKAGE, SMALL
from tests.workers.certify.test_certifier import Drawing
from workers.certify.cases import read_cases
from workers.certify.precision import affordable
from workers.certify.surveyor import Surveyor
from workers.certify.turns import Turns, Unwanted
from workers.methods.grad_cam import GradCam
from workers.methods.rise import Rise
from workers.methods.saliency import Saliency
from workers.precisions import Precisions, gate_of
from workers.records import Subject
from workers.replicas import Replicas
from workers.running import Planned
from workers.runtimes.torch import TorchRuntime


def store_of(bench):
    return open_store(StoreSettings(url=f"file://{bench.folder}/store", reserve_bytes=0))


def surveyor_of(bench):
    store = store_of(bench)
    return Surveyor(
        models=lambda: tuple(bench.shelf),
        unpacked=bench.folder,
        wishes=Wishes(store),
        store=PrecisionRecords(store),
        turns=Turns(bench.scheduler, bench.stopped, lambda: False, "precision"),
        stopped=bench.stopped,
        log=Log(worker="w1"),
    )


def surveyed(bench, model, method) -> PrecisionRecord:
    model.precisions.wish(method)
    surveyor_of(bench).serve(model)
    record = model.precisions.known(method)
    assert record is not None
    return record


def by_hand(model, bench, layer=LAYER):
    """Grad-CAM of every case and class as the paper has it, in float64."""
    path = bench.folder / PACKAGE / "cases.safetensors"
    net = network(classes=len(model.manifest.classes)).double()
    maps = []
    for case in read_cases(path, model.manifest, model.runtime.shape):
        kept = []
        place = net.get_submodule(layer)
        hook = place.register_forward_hook(lambda *given, to=kept: to.append(given[2]))
        scores = net(case.image.double()[None])[0]
        hook.remove()
        for target in case.explained:
            (slope,) = torch.autograd.grad(scores[target], kept, retain_graph=True)
            maps.append((kept[0] * slope.mean((2, 3), keepdim=True)).sum(1).detach().numpy())
    return maps


def test_a_method_that_stays_near_is_offered_with_what_was_measured(bench):
    model = bench.model()
    weights = copy.deepcopy(model.runtime.model.state_dict())
    record = surveyed(bench, model, GradCam(layer=LAYER))
    assert (record.outcome, record.reason, record.gate) == ("offered", None, 0.999)
    assert 0.999 <= record.worst <= record.median < 1
    expected = by_hand(model, bench)
    assert (record.maps, record.cases, record.synthetic) == (len(expected), 24, True)
    assert model.precisions.demand(GradCam(layer=LAYER)) == record
    model.runtime.check()
    assert all(
        torch.equal(each, weights[k]) for k, each in model.runtime.model.state_dict().items()
    )


def test_the_worst_map_is_told_as_it_is(bench):
    """Against maps by hand in float64 and the replica's own: the lowest of all correlations."""
    model = bench.model()
    record = surveyed(bench, model, GradCam(layer=LAYER))
    narrow = model.replicas.at("bfloat16")
    path = bench.folder / PACKAGE / "cases.safetensors"
    found = []
    for case in read_cases(path, model.manifest, model.runtime.shape):
        for target in case.explained:
            plan = GradCam(layer=LAYER).plan(case.image, logits(target))
            ticket = bench.scheduler.submit("check", narrow, [Planned(plan, 1)])
            (maps,) = ticket.result(20).outcomes
            found.append(maps.values[0].numpy())
    pairs = zip(found, by_hand(model, bench), strict=True)
    worst = min(np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs)
    assert record.worst == pytest.approx(worst, abs=2e-6)
    assert record.worst <= worst


class Lifted(nn.Module):
    """Adds 1,000 in one layer and takes it off after: bfloat16 tells every fourth number there."""

    def __init__(self):
        super().__init__()
        self.lift = nn.Conv2d(1, 1, 1)
        nn.init.ones_(self.lift.weight)
        nn.init.constant_(self.lift.bias, 1000.0)
        self.inner = network()

    @override
    def forward(self, x):
        return self.inner(self.lift(x) - 1000.0)


def test_a_model_that_bfloat16_breaks_is_not_offered(bench):
    layer = f"inner.{LAYER}"
    runtime = TorchRuntime(Lifted(), (1, SMALL, SMALL), (layer,))
    model = replace(bench.model(), replicas=Replicas(runtime))
    bench.shelf[:] = [model]
    record = surveyed(bench, model, GradCam(layer=layer))
    assert (record.outcome, record.reason) == ("not_offered", "gate_not_passed")
    assert record.worst < 0.999
    with pytest.raises(PrecisionNotOffered) as caught:
        model.precisions.demand(GradCam(layer=layer))
    assert caught.value.facts["reason"] == "gate_not_passed"


def test_a_map_that_only_float64_gives_counts_as_nothing_alike(bench):
    class Fragile(Drawing):
        name = "fragile"

        def plan(self, image, targets):
            maps = yield from super().plan(image, targets)
            if image.dtype is not torch.float64:
                maps.values.fill_(0)
            return maps

    record = surveyed(bench, bench.model(), Fragile())
    assert (record.outcome, record.worst) == ("not_offered", 0.0)


@pytest.mark.parametrize("what", ["nothing", "nan", "error"])
def test_of_maps_that_say_nothing_nothing_is_said(bench, what):
    record = surveyed(bench, bench.model(), Drawing(what=what))
    assert (record.outcome, record.reason, record.worst) == ("not_offered", "no_usable_maps", None)


def test_what_is_too_dear_is_measured_on_fewer_cases_or_not_at_all(bench):
    assert affordable(Saliency(), (1, 24, 24)) == 24
    assert affordable(Drawing(rows=400), (1, 24, 24)) == 12
    record = surveyed(bench, bench.model(), Drawing(rows=2000))
    assert (record.outcome, record.reason) == ("not_offered", "too_costly")


def test_pixels_are_held_to_less_than_grids_and_scores():
    assert gate_of(Saliency()) == 0.99
    assert gate_of(GradCam(layer=LAYER)) == gate_of(Rise()) == 0.999


def test_a_wish_is_measured_once_for_all_workers(bench):
    model = bench.model()
    wishes = Wishes(store_of(bench))
    wishes.enter(PACKAGE, MethodChoice(name="grad_cam"))
    wishes.enter(PACKAGE, MethodChoice(name="grad_cam", parameters={"layer": LAYER}))
    wishes.enter(PACKAGE, MethodChoice(name="of_another_version"))
    surveyor_of(bench).serve(model)
    (record,) = model.precisions.all()
    assert (record.method, record.parameters["layer"]) == ("grad_cam", LAYER)
    found = PrecisionRecords(store_of(bench)).find
    elsewhere = Precisions(Subject(model.manifest, "float32"), "cpu", find=found)
    assert elsewhere.demand(GradCam(layer=LAYER)) == record
    other_device = Precisions(Subject(model.manifest, "float32"), "cuda", find=found)
    assert other_device.known(GradCam(layer=LAYER)) is None


def test_wishes_are_bounded(bench):
    wishes = Wishes(store_of(bench))
    for k in range(MOST + 3):
        wishes.enter(PACKAGE, MethodChoice(name="smooth_grad", parameters={"seed": k}))
    assert len(list(wishes.of(PACKAGE))) == MOST


def test_a_model_that_has_none_is_asked_nothing(bench):
    model = bench.model()
    precisions = Precisions(Subject(model.manifest, "float32"), "cpu", "runtime_cannot")
    precisions.wish(Saliency())
    assert precisions.next() is None
    with pytest.raises(PrecisionNotOffered) as caught:
        precisions.demand(Saliency())
    assert caught.value.facts["reason"] == "runtime_cannot"


def test_a_drain_gives_it_up(bench):
    model = bench.model()
    model.precisions.wish(Saliency())
    bench.stopped.set()
    with pytest.raises(Unwanted):
        surveyor_of(bench).serve(model)
    (record,) = model.precisions.all()
    assert record.outcome == "pending"
