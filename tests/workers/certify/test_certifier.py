"""Measuring from end to end: on copies, beside jobs, once for all workers, given up at once."""

import logging
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from typing_extensions import override

from service.domain.certificate import MethodRecord
from service.domain.network import Remote
from tests.support.engine import logits
from tests.support.exported import onnx_of, uninterpreted
from tests.support.inference_server import InferenceServer, serving
from tests.support.small_model import LAYER, network
from workers.certify.edges import edges
from workers.certify.measure import HIGHEST_EFFORT
from workers.certify.turns import Unwanted
from workers.certify.verdict import outcome_of
from workers.loading import _records as records_of
from workers.methods.base import Maps, Method, cells
from workers.methods.grad_cam import GradCam
from workers.methods.guided_backprop import GuidedBackprop
from workers.methods.occlusion import Occlusion
from workers.methods.rise import Rise
from workers.methods.saliency import Saliency
from workers.passes import Ability, Cost, Forward, Gradient, Plan
from workers.records import Records
from workers.replicas import Replicas
from workers.rows import Clean, Noisy
from workers.running import Planned
from workers.runtimes.graph.read import read_model
from workers.runtimes.onnx import OnnxRuntime
from workers.runtimes.open_inference import Server
from workers.runtimes.remote import RemoteRuntime
from workers.runtimes.torch import TorchRuntime

SMALL = 24
"""Pixels along each edge of the bench's images."""


class Drawing(Method):
    """A method of the tests, which may look at the image alone."""

    name = "drawing"
    title = paper = cost = weaknesses = "Tests."
    needs = frozenset({Ability.FORWARD})
    signed = True
    rows: int = 1
    what: str = "edges"

    @override
    def estimate(self, shape, targets):
        return Cost(forward_rows=self.rows)

    @override
    def plan(self, image, targets) -> Plan[Maps]:
        yield Forward(Clean(image), targets)
        drawn = {
            "edges": lambda: edges(image),
            "nothing": lambda: torch.zeros_like(image),
            "nan": lambda: image * float("nan"),
            "error": lambda: 1 / 0,
        }[self.what]()
        spatial = image.shape[1:]
        return Maps(drawn.float().expand(len(targets), *image.shape), cells(spatial, spatial))


def measured(bench, model, method) -> MethodRecord:
    assert model.records.record(method) == "pending"
    bench.certifier.serve(model)
    record = model.records.record(method)
    assert isinstance(record, MethodRecord)
    return record


def weights(model):
    return {name: each.clone() for name, each in model.runtime.model.state_dict().items()}


def test_a_method_is_certified_and_calibrated_and_the_served_model_stays_as_it_was(bench):
    model = bench.model(side=48)
    before = weights(model)
    record = measured(bench, model, GradCam(layer=LAYER))
    certificate = record.certificate
    assert certificate.outcome in ("passed", "weakly_specific", "failed")
    pairs = {name: each.pairs for name, each in certificate.similarities.items()}
    assert pairs == {"all_random": 96, "head_random": 96, "other_class": 24, "other_patient": 24}
    assert (certificate.cases, certificate.seeds, certificate.synthetic) == (24, 4, True)
    assert all(each.low <= each.value <= each.high for each in certificate.similarities.values())
    assert record.calibration is not None
    assert record.calibration.maps == 24
    assert set(record.calibration.templates) == {"nodule", "effusion", "fracture"}
    for template in record.calibration.templates.values():
        assert np.linalg.norm(template) == pytest.approx(1, abs=1e-3)
        assert np.shape(template) == (16, 16)
    model.runtime.check()
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())


def test_equal_inputs_give_equal_records_whatever_else_the_device_does(bench, tmp_path):
    alone = measured(bench, bench.model(), Saliency())
    for path in (tmp_path / "store").rglob("*.json"):
        path.unlink()
    model, stop = bench.model(), threading.Event()
    served = []

    def busy():
        image = torch.randn(1, SMALL, SMALL)
        while not stop.is_set():
            plan = saliency_of_noise(image)
            report = bench.scheduler.submit("job", model.runtime, [Planned(plan, 8)], weight=2.0)
            served.append(report.result(30).outcomes)

    job = threading.Thread(target=busy)
    job.start()
    try:
        again = measured(bench, model, Saliency())
    finally:
        stop.set()
        job.join(30)
    assert len(served) > 10
    assert again == alone


def saliency_of_noise(image) -> Plan[None]:
    yield Gradient(Noisy(image, 0.1, 0, 8), logits(0, 1))


@pytest.fixture
def clock_of_rows(monkeypatch):
    """Let a row take 10 ms of the device's clock and all else none, however busy the machine is."""
    rows = [0]
    whole = TorchRuntime.serve

    def counted(self, group, segments):
        rows[0] += sum(segment.count for segment in segments)
        return whole(self, group, segments)

    monkeypatch.setattr(TorchRuntime, "serve", counted)
    monkeypatch.setattr(time, "perf_counter", lambda: rows[0] * 0.01)


@pytest.mark.usefixtures("clock_of_rows")
def test_a_job_takes_nearly_all_of_the_device_from_a_measurement(bench):
    model = bench.model()
    served = []

    def measured() -> Plan[None]:
        rows = Noisy(torch.zeros(1, SMALL, SMALL), 0.1, 0, 4000)
        yield Gradient(rows, logits(0), fold=told("certify"))

    def asked() -> Plan[None]:
        for seed in range(40):
            rows = Noisy(torch.zeros(1, SMALL, SMALL), 0.1, seed, 1)
            yield Gradient(rows, logits(0), fold=told("job"))

    def told(who):
        return lambda _, step: served.extend([who] * step.count)

    variant = model.runtime.variant(model.runtime.model)
    measuring = bench.scheduler.submit("certify-x", variant, [Planned(measured(), 1)], weight=0.1)
    while not served:
        time.sleep(0.01)
    job = bench.scheduler.submit("job", model.runtime, [Planned(asked(), 1)], weight=2.0)
    job.result(60)
    bench.scheduler.cancel("certify-x")
    measuring.result(60)
    first, last = served.index("job"), len(served) - served[::-1].index("job")
    beside = served[first:last]
    assert beside.count("job") == 40
    assert 1 <= beside.count("certify") <= 4  # of 40 rows a twentieth are 2, and batches are whole


def test_what_one_worker_measured_no_other_measures(bench):
    record = measured(bench, bench.model(), Saliency())
    model = bench.model()
    model.records.record(Saliency())
    bench.scheduler.stop(drain=False)  # nothing can be measured any more
    bench.certifier.serve(model)
    assert model.records.record(Saliency()) == record


def test_dear_methods_are_not_measured_before_somebody_asks_for_them(bench):
    model = bench.model()
    folder = bench.folder / model.ref.package
    records = records_of(model.manifest, folder, model.runtime, model.entry, model.facts)
    assert {"saliency", "smooth_grad"} <= {method.name for method, _ in records.all()}
    assert not {"rise", "lime"} & {method.name for method, _ in records.all()}
    assert records.record(Rise()) == "pending"


def test_the_edge_detector_fails_as_a_method_too(bench):
    record = measured(bench, bench.model(), Drawing())
    assert record.certificate.outcome == "failed"
    assert record.certificate.similarities == record.certificate.control
    for name in ("all_random", "head_random", "other_class"):
        assert record.certificate.control[name].low == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("what", ["nothing", "nan", "error"])
def test_a_method_without_usable_maps_cannot_be_certified(bench, what):
    certificate = measured(bench, bench.model(), Drawing(what=what)).certificate
    assert (certificate.outcome, certificate.reason) == ("not_certifiable", "no_usable_maps")


def test_a_method_that_does_not_fit_is_told_so_and_left_to_other_workers(
    bench, caplog, monkeypatch
):
    model = bench.model()

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(TorchRuntime, "forward", full)
    with caplog.at_level(logging.INFO, "whylight"):
        record = measured(bench, model, Saliency())
    certificate = record.certificate
    assert (certificate.outcome, certificate.reason) == ("not_certifiable", "does_not_fit")
    assert bench.store.find(record.id) is None
    told = [(each.levelname, each.message) for each in caplog.records]
    assert told == [("WARNING", "not_measured")]
    assert caplog.records[0].exc_info is None


def test_a_fault_in_measuring_is_logged_as_a_bug_and_told(bench, caplog, monkeypatch):
    model = bench.model()
    monkeypatch.setattr(Saliency, "estimate", lambda *_: 1 / 0)
    with caplog.at_level(logging.INFO, "whylight"):
        record = measured(bench, model, Saliency())
    assert record.certificate.reason == "measuring_failed"
    assert bench.store.find(record.id) is None
    assert [each.message for each in caplog.records] == ["unexpected_error"]


def test_a_method_beyond_all_cost_is_not_measured(bench):
    passes = HIGHEST_EFFORT // (24 * 9)
    certificate = measured(bench, bench.model(), Drawing(rows=passes + 1)).certificate
    assert (certificate.outcome, certificate.reason) == ("not_certifiable", "too_costly")
    certificate = measured(bench, bench.model(), Drawing(rows=passes)).certificate
    assert (certificate.cases, certificate.seeds) == (24, 4)


def test_where_no_weights_are_lent_methods_are_calibrated_all_the_same(bench):
    method = Occlusion(window=24, stride=12, baseline=0.0)
    model = bench.model(side=48)
    lent = measured(bench, model, method)
    content = uninterpreted(onnx_of(network(), torch.zeros(model.runtime.shape)))
    model = replace(model, replicas=Replicas(OnnxRuntime(read_model(content), model.runtime.shape)))
    model = replace(model, records=Records(model.records.subject))
    for path in (bench.folder / "store").rglob("*.json"):
        path.unlink()
    bench.shelf[:] = [model]
    record = measured(bench, model, method)
    certificate = record.certificate
    assert (certificate.outcome, certificate.reason) == ("not_certifiable", "model_not_lent")
    assert certificate.similarities == {}
    ours, theirs = record.calibration, lent.calibration
    assert (ours.maps, ours.supported) == (24, theirs.supported)
    assert ours.r.p50 == pytest.approx(theirs.r.p50, abs=1e-3)
    assert ours.reference == pytest.approx(theirs.reference, rel=1e-3)
    for key, template in theirs.templates.items():
        np.testing.assert_allclose(ours.templates[key], template, atol=1e-3)


def test_where_no_weights_are_lent_blank_maps_are_no_calibration(bench):
    model = bench.model()
    content = uninterpreted(onnx_of(network(), torch.zeros(model.runtime.shape)))
    model = replace(model, replicas=Replicas(OnnxRuntime(read_model(content), model.runtime.shape)))
    bench.shelf[:] = [model]
    record = measured(bench, model, Drawing(what="nothing"))
    assert record.certificate.reason == "no_usable_maps"
    assert record.calibration is None


METHODS = [
    Saliency(),
    GuidedBackprop(),
    GradCam(layer=LAYER),
    Occlusion(window=24, stride=12, baseline=0.0),
]


def interpreted(model):
    """Return the model with its network as a file of ONNX."""
    shape = model.runtime.shape
    content = read_model(onnx_of(network(), torch.zeros(shape)))
    runtime = OnnxRuntime(content, shape, {LAYER: "/blocks/blocks.1/rectify/Relu_output_0"})
    subject = replace(model.records.subject, surrogate=True)
    return replace(model, replicas=Replicas(runtime), records=Records(subject))


@pytest.mark.parametrize("method", METHODS, ids=lambda each: each.name)
def test_a_method_is_certified_on_the_network_that_stands_in_for_the_model(bench, method):
    """As in torch: the two are one network, and shuffles are of the same weights."""
    model = bench.model(side=48)
    lent = measured(bench, model, method)
    assert not lent.certificate.surrogate
    model = interpreted(model)
    bench.shelf[:] = [model]
    record = measured(bench, model, method)
    certificate = record.certificate
    assert certificate.surrogate
    assert (certificate.cases, certificate.seeds) == (24, 4)
    assert certificate.control == lent.certificate.control
    for name, theirs in lent.certificate.similarities.items():
        ours = certificate.similarities[name]
        assert ours.pairs == theirs.pairs
        if name != "all_random":  # whose order of weights is another
            assert ours.value == pytest.approx(theirs.value, abs=2e-3)
    assert certificate.outcome == outcome_of(certificate.similarities)
    assert record.calibration.maps == lent.calibration.maps == 24
    assert record.calibration.reference == pytest.approx(lent.calibration.reference, rel=1e-3)
    model.runtime.check()


def test_forward_methods_are_calibrated_by_the_session_itself(bench, monkeypatch):
    model = interpreted(bench.model(side=48))
    bench.shelf[:] = [model]
    occlusion = Occlusion(window=24, stride=12, baseline=0.0)
    reference = measured(bench, model, occlusion).calibration.reference
    for path in (bench.folder / "store").rglob("*.json"):
        path.unlink()
    run = OnnxRuntime._run
    monkeypatch.setattr(OnnxRuntime, "_run", lambda *a: [2 * each for each in run(*a)])
    model = replace(model, records=Records(model.records.subject))
    bench.shelf[:] = [model]
    assert measured(bench, model, occlusion).calibration.reference == pytest.approx(
        2 * reference, rel=1e-4
    )


@pytest.fixture
def elsewhere(bench):
    """The bench's model on a server, and that server."""
    model = bench.model(side=48)
    remote = Remote(endpoint="lab", model="chest", input="image", output="logits")
    with serving(InferenceServer(onnx_of(network(), torch.zeros(model.runtime.shape)))) as server:
        runtime = RemoteRuntime(Server(server.url, remote, 5), remote, "lab", model.runtime.shape)
        model = replace(model, replicas=Replicas(runtime))
        bench.shelf[:] = [model]
        yield model, server


def test_a_model_on_a_server_is_calibrated_and_never_certified(bench, elsewhere):
    model, _ = elsewhere
    record = measured(bench, model, Occlusion(window=24, stride=12, baseline=0.0))
    assert record.certificate.reason == "model_not_lent"
    assert record.calibration.maps == 24
    assert record.calibration.reference > 0


def test_a_silent_server_leaves_its_model_to_be_measured_later(bench, elsewhere):
    model, server = elsewhere
    method = Occlusion(window=24, stride=12, baseline=0.0)
    model.records.record(method)
    server.status = 503
    with pytest.raises(Unwanted):
        bench.certifier.serve(model)
    assert model.records.record(method) == "pending"
    assert not list((bench.folder / "store").rglob("*.json"))


def test_images_without_edges_say_nothing_of_a_method(bench):
    certificate = measured(
        bench, bench.model(images=torch.zeros(26, 1, SMALL, SMALL)), Saliency()
    ).certificate
    assert (certificate.outcome, certificate.reason) == ("not_certifiable", "control_passed")


def test_labels_of_another_shape_leave_the_model_without_certificates(bench):
    certificate = measured(bench, bench.model(labels=torch.ones(26, 2)), Saliency()).certificate
    assert certificate.outcome == "not_certifiable"
    assert certificate.reason == "invalid_calibration_set"


def test_a_model_of_one_class_is_certified_by_the_rest(bench):
    model = bench.model(classes=1, labels=torch.ones(26, 1))
    certificate = measured(bench, model, Saliency()).certificate
    assert set(certificate.similarities) == {"all_random", "head_random", "other_patient"}
    assert certificate.similarities.keys() == certificate.control.keys()
    assert certificate.outcome != "not_certifiable"


def test_a_model_that_is_removed_meanwhile_is_let_go(bench):
    model = bench.model(side=48)
    model.records.record(Rise(samples=1024))
    caught = []

    def serve():
        try:
            bench.certifier.serve(model)
        except Unwanted as error:
            caught.append(error)

    working = threading.Thread(target=serve)
    working.start()
    time.sleep(0.5)
    bench.shelf.clear()
    working.join(10)
    assert len(caught) == 1
    assert bench.store.find(model.records.subject.identify(Rise(samples=1024))) is None


def test_a_drain_ends_a_measurement_at_once(bench):
    model = bench.model(side=48)
    model.records.record(Rise(samples=1024))
    working = threading.Thread(target=bench.certifier.run)
    working.start()
    time.sleep(1.0)
    began = time.monotonic()
    bench.stopped.set()
    working.join(10)
    assert not working.is_alive()
    assert time.monotonic() - began < 2
    assert model.records.record(Rise(samples=1024)) == "pending"
