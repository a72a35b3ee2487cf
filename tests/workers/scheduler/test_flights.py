"""One batch on its way while the one before is handed on, as on CUDA; here on a CPU."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from service.errors.jobs import Cancelled
from service.errors.models import MethodError, NonFiniteScore
from tests.support.engine import (
    WITHOUT_TOKENS,
    attribute,
    image_for,
    logits,
    settled,
    small_runtime,
    through,
)
from workers.batches import Batches, Flight
from workers.methods.base import METHODS, Maps
from workers.methods.saliency import Saliency
from workers.passes import Exclusive, Forward, Plan, Step
from workers.rows import Given
from workers.running import Planned
from workers.runtimes.base import Served
from workers.scheduler import Scheduler

LENT = ("deep_lift", "deep_lift_shap", "gradient_shap")
"""Methods that ask for no batch."""


@pytest.fixture(autouse=True)
def _on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = Batches.launch

    def later(self: Batches, *args: Any) -> Flight:
        flight = launch(self, *args)
        return replace(flight, may_wait=all(isinstance(each, Served) for each in flight.answers))

    monkeypatch.setattr(Batches, "launch", later)


def images(count: int) -> Tensor:
    return torch.stack([image_for(seed=seed) for seed in range(count)])


def folding(rows: Tensor, told: Callable[[int, Step], None]) -> Plan[str]:
    yield Forward(Given(rows), logits(0), fold=told)
    return "done"


def test_a_batch_is_launched_before_the_one_before_is_folded() -> None:
    runtime, order = small_runtime(), []
    launched = runtime.served.batches
    plan = folding(images(3), lambda start, _: order.append((start, len(launched))))
    assert through(Scheduler(slice_seconds=1e-9), runtime, plan) == ["done"]
    assert order == [(0, 2), (1, 3), (2, 3)]


@pytest.mark.parametrize("name", sorted(set(WITHOUT_TOKENS) - set(LENT)))
def test_two_tenants_get_what_they_would_get_alone(name: str) -> None:
    runtime, scheduler = small_runtime(), Scheduler(slice_seconds=0.005)
    method = settled(METHODS[name](), runtime)
    asked = [(image_for(seed=seed), logits(seed)) for seed in (0, 1)]
    alone = [attribute(method, runtime, *each).values for each in asked]
    jobs = [
        scheduler.submit(f"{k}", runtime, [Planned(method.plan(*each), 1)])
        for k, each in enumerate(asked)
    ]
    scheduler.run_until_idle()
    for job, expected in zip(jobs, alone, strict=True):
        (maps,) = job.result(0).outcomes
        assert isinstance(maps, Maps)
        torch.testing.assert_close(maps.values, expected)


def test_numbers_that_are_not_finite_fail_their_own_job_a_batch_later() -> None:
    runtime, scheduler = small_runtime(), Scheduler(slice_seconds=1e-9)
    rows, folded = images(4), []
    rows[1] = torch.nan
    bad = scheduler.submit("bad", runtime, [Planned(folding(rows, lambda *a: folded.append(a)), 4)])
    good = scheduler.submit("good", runtime, [Planned(Saliency().plan(rows[0], logits(0)), 1)])
    scheduler.run_until_idle()
    (failure,) = bad.result(0).outcomes
    assert isinstance(failure, NonFiniteScore)
    assert [start for start, _ in folded] == [0]
    assert isinstance(good.result(0).outcomes[0], Maps)


def test_a_job_that_is_cancelled_while_its_batch_is_on_its_way_ends_at_once() -> None:
    runtime, scheduler, folded = small_runtime(), Scheduler(slice_seconds=1e-9), []
    job = scheduler.submit(
        "gone", runtime, [Planned(folding(images(4), lambda *a: folded.append(a)), 4)]
    )
    assert scheduler.turn()
    scheduler.cancel("gone")
    scheduler.run_until_idle()
    assert isinstance(job.result(0).outcomes[0], Cancelled)
    assert folded == []
    assert through(scheduler, runtime, folding(images(1), lambda *_: None)) == ["done"]


def test_the_model_is_lent_when_no_batch_is_on_its_way() -> None:
    runtime, order = small_runtime(), []

    def plan() -> Plan[None]:
        rows = Forward(Given(images(2)), logits(0), fold=lambda start, _: order.append(start))
        yield rows, Exclusive(lambda _: order.append("lent"), 1.0)

    through(Scheduler(slice_seconds=1e-9), runtime, plan())
    assert order == [0, 1, "lent"]


def test_a_fold_that_breaks_spares_the_batch_that_was_launched_meanwhile() -> None:
    runtime, scheduler = small_runtime(), Scheduler(slice_seconds=1e-9)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    jobs = [
        scheduler.submit("bad", runtime, [Planned(folding(images(3), broken), 3)]),
        scheduler.submit("good", runtime, [Planned(folding(images(3), lambda *_: None), 3)]),
    ]
    scheduler.run_until_idle()
    bad, good = (job.result(0).outcomes[0] for job in jobs)
    assert isinstance(bad, MethodError)
    assert good == "done"
