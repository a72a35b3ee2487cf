"""The records that come with the bundled models: complete, and what a worker would measure."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from examples.phantom.certify import MODELS, Workbench, workbench
from service.domain.certificate import MethodRecord
from service.manifests import read_manifest
from service.records import read_listed
from workers.catalog import defaults
from workers.certify.cases import CASES
from workers.certify.ground import prepare
from workers.certify.measure import Measurement
from workers.certify.verdict import outcome_of
from workers.certify.weights import SEEDS

CLEAN = MODELS / "chest-phantom"
CERTIFIED = [
    path.name
    for path in sorted(MODELS.iterdir())
    if (manifest := read_manifest((path / "model.yaml").read_bytes())).runtime == "torch"
    and manifest.calibration
]

INTERPRETED = "chest-phantom-onnx"
"""The network of `CLEAN` as a file of ONNX."""

COMMON = {"eigen_cam", "grad_cam", "occlusion", "saliency"}
OF_CHEST = {"guided_backprop", "rise", "kernel_shap", "integrated_gradients"}
"""What is known of the chest models besides: rules for rectifiers, and dear methods."""


@pytest.fixture(scope="module")
def benches() -> Iterator[Callable[[str], Workbench]]:
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(workbench(MODELS / name)))


def shipped(package: Path) -> dict[str, MethodRecord]:
    records = read_listed((package / "certificates.json").read_bytes(), MethodRecord)
    return {each.method: each for each in records}


@pytest.mark.parametrize("name", [*CERTIFIED, INTERPRETED])
def test_every_record_is_what_a_worker_asks_for_by_default(name, benches):
    model = benches(name).model
    known = shipped(MODELS / name)
    assert known.keys() >= (COMMON | OF_CHEST if name.startswith("chest") else COMMON)
    served = defaults(known, model.facts)
    assert known.keys() == served.keys() <= set(model.entry.methods)
    for method in served.values():
        assert model.records.record(method) == known[method.name]


@pytest.mark.parametrize("name", [*CERTIFIED, INTERPRETED])
def test_the_control_fails_beside_every_method(name):
    for record in shipped(MODELS / name).values():
        found = record.certificate
        assert (found.cases, found.seeds) == (CASES, len(SEEDS))
        assert outcome_of(found.control) == "failed"
        assert found.outcome == outcome_of(found.similarities)
        assert found.synthetic
        assert found.surrogate == (name == INTERPRETED)


def test_records_on_the_interpreted_graph_end_as_those_of_the_network_in_torch():
    """The head's shuffles are the same; those of all weights take them in another order."""
    ours, theirs = shipped(MODELS / INTERPRETED), shipped(CLEAN)
    for name, record in ours.items():
        mine, other = record.certificate, theirs[name].certificate
        assert mine.outcome == other.outcome
        for compared in ("head_random", "other_class", "other_patient"):
            found, expected = mine.similarities[compared], other.similarities[compared]
            assert found.value == pytest.approx(expected.value, abs=0.01)
        mine, other = record.calibration, theirs[name].calibration
        assert mine.maps == other.maps
        assert mine.supported == pytest.approx(other.supported, abs=0.05)
        assert mine.reference == pytest.approx(other.reference, rel=0.01)


def test_grad_cam_passes_and_guided_backpropagation_fails():
    known = shipped(CLEAN)
    assert known["grad_cam"].certificate.outcome == "passed"
    assert known["guided_backprop"].certificate.outcome == "failed"
    assert known["grad_cam"].calibration.supported >= 0.5


def test_measuring_again_gives_the_record_that_is_shipped(benches):
    bench = benches(CLEAN.name)
    (method,) = defaults(("grad_cam",), bench.model.facts).values()
    ground = prepare(bench.model, CLEAN, bench.turns)
    again = Measurement(method, ground, bench.turns).record(bench.model.records.subject)
    record = shipped(CLEAN)["grad_cam"]
    assert again.id == record.id
    assert again.certificate.outcome == record.certificate.outcome
    for name, each in record.certificate.similarities.items():
        found = again.certificate.similarities[name]
        # the last digits differ between processors
        assert (found.value, found.low, found.high) == pytest.approx(
            (each.value, each.low, each.high), abs=2e-3
        )
    assert again.calibration.maps == record.calibration.maps
    assert again.calibration.supported == pytest.approx(record.calibration.supported, abs=0.05)
    assert again.calibration.reference == pytest.approx(record.calibration.reference, rel=1e-3)
