"""How a model is lent to one plan, and what becomes of one that comes back changed."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.errors.models import ModelUnavailable
from tests.support.engine import (
    CLASSES,
    WITHOUT_TOKENS,
    SmallNet,
    image_for,
    logits,
    settled,
    small_runtime,
    through,
)
from workers.methods.base import METHODS
from workers.methods.saliency import Saliency
from workers.passes import Exclusive, Forward, Lease, Plan, Step, TimeUp
from workers.rows import Noisy
from workers.running import Planned
from workers.runtimes.base import Runtime
from workers.scheduler import Scheduler


def exclusive(work: Callable[[Lease], Any], seconds: float = 5.0) -> Plan[Any]:
    """A plan that returns what its exclusive work returned."""
    given = yield Exclusive(work, seconds)
    return given


def endless(lease: Lease) -> None:
    """Work until the lease ends."""
    while True:
        lease.check()


def test_a_lent_model_is_alone_and_comes_back() -> None:
    runtime, image = small_runtime(), image_for()

    def work(lease: Lease) -> Tensor:
        lease.check()
        with torch.no_grad():
            scores: Tensor = lease.model(image[None])
        return scores

    saliency = Saliency().plan(image, logits(1))
    scores, maps = through(Scheduler(), runtime, exclusive(work), saliency)
    assert scores.shape == (1, CLASSES)
    assert maps.values.shape == (1, *image.shape)


def test_lent_work_beyond_its_bound_fails_alone() -> None:
    runtime = small_runtime()
    saliency = Saliency().plan(image_for(), logits(1))
    late, maps = through(Scheduler(), runtime, exclusive(endless, 0.02), saliency)
    assert late.code == "deadline_exceeded"
    assert "lent to one job alone for 0.02 s at most" in late.detail
    assert maps.values.shape == (1, 1, 20, 16)


def test_lent_work_beyond_the_jobs_own_time_is_told_of_that() -> None:
    (late,) = through(
        Scheduler(), small_runtime(), exclusive(endless), deadline=time.monotonic() + 0.05
    )
    assert late.code == "deadline_exceeded"
    assert "WHYLIGHT_WORKER__JOB_LIMIT" in late.detail


def test_a_plan_whose_lent_work_outlasts_the_job_gives_what_it_has() -> None:
    """And the plans beside it: the end of the job's time is told to all of them."""

    def patient(name: str) -> Plan[str]:
        try:
            yield Exclusive(endless, 60.0)
        except TimeUp:
            return f"part of {name}"
        return name

    runtime, deadline = small_runtime(), time.monotonic() + 0.05
    plans = (patient("one"), patient("other"), exclusive(endless, 60.0))
    one, other, late = through(Scheduler(), runtime, *plans, deadline=deadline)
    assert (one, other) == ("part of one", "part of other")
    assert late.code == "deadline_exceeded"
    runtime.check()


def test_lent_rows_count_as_progress() -> None:
    def lending() -> Plan[int]:
        for _ in range(4):
            yield Exclusive(lambda _: None, 5.0, rows=2)
        return 4

    told: list[float] = []
    scheduler = Scheduler()
    scheduler.submit("job", small_runtime(), [Planned(lending(), 8)], on_progress=told.append)
    scheduler.run_until_idle()
    assert told[:3] == [0.25, 0.5, 0.75]
    assert told[-1] == 1


def write(model: nn.Module) -> None:
    with torch.no_grad():
        next(model.parameters()).mul_(2)


def hook(model: nn.Module) -> None:
    model.register_forward_hook(lambda *_: None)


def train(model: nn.Module) -> None:
    model.train()


def thaw(model: nn.Module) -> None:
    next(model.parameters()).requires_grad_()


def replace(model: nn.Module) -> None:
    assert isinstance(model, SmallNet)
    model.features[2] = nn.Sigmoid()


@pytest.mark.parametrize("change", [write, hook, train, thaw, replace])
def test_a_changed_replica_is_dropped_with_all_that_ran_on_it(
    change: Callable[[nn.Module], None],
) -> None:
    lost: list[Runtime] = []
    runtime, untouched = small_runtime(), small_runtime(3)
    scheduler = Scheduler(on_lost=lost.append)

    def slow() -> Plan[Step]:
        step: Step = yield Forward(Noisy(image_for(), 0.1, 1, 500), logits(0))
        return step

    neighbor = scheduler.submit("neighbor", runtime, [Planned(slow(), 500)])
    plan = exclusive(lambda lease: change(lease.model))
    culprit = scheduler.submit("culprit", runtime, [Planned(plan, 1)])
    other = scheduler.submit(
        "other", untouched, [Planned(Saliency().plan(image_for(3), logits(0)), 1)]
    )
    scheduler.run_until_idle()
    assert lost == [runtime]
    assert isinstance(culprit.result(0).outcomes[0], ModelUnavailable)
    assert isinstance(neighbor.result(0).outcomes[0], ModelUnavailable)
    assert other.result(0).outcomes[0].values.shape == (1, *image_for(3).shape)


def test_an_ordinary_job_leaves_the_replica_as_it_was() -> None:
    lost: list[Runtime] = []
    runtime = small_runtime()
    plans = [
        settled(METHODS[name](), runtime).plan(image_for(), logits(0, 1)) for name in WITHOUT_TOKENS
    ]
    through(Scheduler(on_lost=lost.append), runtime, *plans)
    assert not lost
    assert all(not each.requires_grad for each in runtime.model.parameters())
