"""What comes with the bundled models of bfloat16: offered at once, and what measuring gives."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from examples.phantom.certify import CHEAP, MODELS, PRECISIONS, Workbench, workbench
from service.domain.precision import PrecisionRecord
from service.errors.requests import PrecisionNotOffered
from service.records import read_listed
from workers.catalog import certified, defaults
from workers.certify.cases import read_cases
from workers.certify.precision import measured
from workers.methods.smooth_grad import SmoothGrad

BRINGING = [path.parent.name for path in sorted(MODELS.glob(f"*/{PRECISIONS}"))]
CLEAN = MODELS / "chest-phantom"
OF_LAYERS = {"grad_cam", "layer_cam", "hires_cam", "eigen_cam"}


@pytest.fixture(scope="module")
def benches() -> Iterator[Callable[[str], Workbench]]:
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(workbench(MODELS / name)))


def shipped(name: str) -> dict[str, PrecisionRecord]:
    return {
        e.method: e for e in read_listed((MODELS / name / PRECISIONS).read_bytes(), PrecisionRecord)
    }


def test_there_are_some() -> None:
    assert "chest-phantom" in BRINGING


@pytest.mark.parametrize("name", BRINGING)
def test_what_passed_is_offered_when_the_model_is_loaded(name: str, benches) -> None:
    model, known = benches(name).model, shipped(name)
    ordinary = defaults(model.entry.methods, model.facts)
    cheap = {
        key
        for key, each in ordinary.items()
        if each.estimate(model.runtime.shape, 1).effort <= CHEAP
    }
    assert known.keys() <= cheap
    told = certified(model.entry, model.records, model.precisions, model.facts).precisions
    assert {each.method: each for each in told} == known
    assert {key for key, each in known.items() if each.outcome == "offered"} >= OF_LAYERS
    for key, record in known.items():
        assert (record.outcome == "offered") == (record.worst >= record.gate)
        if record.outcome == "offered":
            assert model.precisions.demand(ordinary[key]) == record
        else:
            with pytest.raises(PrecisionNotOffered):
                model.precisions.demand(ordinary[key])
    with pytest.raises(PrecisionNotOffered):
        model.precisions.demand(SmoothGrad(samples=4))


def test_a_record_of_other_weights_is_not_taken_in(benches) -> None:
    model = benches("chest-phantom").model
    (method,) = defaults(("layer_cam",), model.facts).values()
    record = shipped("chest-phantom")["layer_cam"]
    other = record.model_copy(update={"id": benches("chest-phantom-marker").model.ref.package})
    assert not model.precisions.fits(other, method)
    assert not benches("chest-phantom-marker").model.precisions.fits(record, method)
    assert model.precisions.fits(record, method)


def test_measuring_again_gives_the_figures_that_are_shipped(benches) -> None:
    bench = benches("chest-phantom")
    (method,) = defaults(("grad_cam",), bench.model.facts).values()
    cases = read_cases(
        CLEAN / bench.model.manifest.calibration.cases,
        bench.model.manifest,
        bench.model.runtime.shape,
    )
    again, record = (
        measured(method, bench.model, cases, bench.turns),
        shipped(CLEAN.name)["grad_cam"],
    )
    assert (again.id, again.maps, again.cases) == (record.id, record.maps, record.cases)
    assert again.worst == pytest.approx(record.worst, abs=1e-4)
    assert again.outcome == record.outcome == "offered"
