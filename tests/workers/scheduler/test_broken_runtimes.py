"""A model that cannot be measured, grouped or checked ends its own jobs, never the loop."""

import threading
from collections.abc import Hashable
from concurrent.futures import Future
from typing import NoReturn

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from service.errors.base import WhylightError
from service.errors.models import DoesNotFit, MethodError, ModelError, ModelUnavailable
from tests.support.engine import image_for, logits, small_net
from workers.device import DeviceLostError
from workers.methods.saliency import Saliency
from workers.running import Planned, Report
from workers.runtimes.base import Fit, Runtime, Work
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler


def rise(error: Exception) -> NoReturn:
    raise error


class Broken(TorchRuntime):
    """A sound model, of which one thing that the loop asks raises."""

    def __init__(self, where: str, error: Exception) -> None:
        super().__init__(small_net(), (1, 20, 16))
        self.where = where
        self.error = error

    @override
    def fits(self, group: Hashable) -> Fit:
        return rise(self.error) if self.where == "fits" else super().fits(group)

    @override
    def group(self, work: Work) -> Hashable:
        return rise(self.error) if self.where == "group" else super().group(work)

    @override
    def check(self) -> None:
        return rise(self.error) if self.where == "check" else super().check()


def ask(scheduler: Scheduler, job: str, runtime: Runtime) -> Future[Report[Tensor]]:
    plan = Saliency().plan(image_for(), logits(0))
    return scheduler.submit(job, runtime, [Planned(plan, 1)])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("where", "error", "told"),
    [
        ("fits", RuntimeError("patient text"), ModelError),
        ("fits", ModelUnavailable("Resize to 48 x 48."), ModelUnavailable),
        ("fits", torch.OutOfMemoryError("simulated"), DoesNotFit),
        ("group", RuntimeError("patient text"), MethodError),
        ("check", RuntimeError("patient text"), ModelUnavailable),
    ],
)
def test_whatever_a_runtime_raises_ends_its_job_and_the_loop_lives_on(
    where: str, error: Exception, told: type[WhylightError]
) -> None:
    bugs: list[Exception] = []
    lost: list[Runtime] = []
    scheduler = Scheduler(on_bug=lambda bug, _: bugs.append(bug), on_lost=lost.append)
    owner = threading.Thread(target=scheduler.run_forever)
    owner.start()
    broken, sound = Broken(where, error), TorchRuntime(small_net(), (1, 20, 16))
    try:
        before = ask(scheduler, "before", sound).result(30)
        (outcome,) = ask(scheduler, "broken", broken).result(30).outcomes
        after = ask(scheduler, "after", sound).result(30)
        assert owner.is_alive()
    finally:
        scheduler.stop(drain=False)
        owner.join(30)
    assert type(outcome) is told
    assert "patient" not in outcome.detail
    assert (error in bugs) is (type(error) is RuntimeError)
    assert lost == ([broken] if where == "check" else [])
    for report in (before, after):
        assert not isinstance(report.outcomes[0], WhylightError)


@pytest.mark.parametrize("where", ["fits", "check"])
def test_a_device_that_is_lost_while_a_model_is_measured_or_checked_ends_the_loop(
    where: str,
) -> None:
    scheduler = Scheduler()
    job = ask(scheduler, "job", Broken(where, torch.AcceleratorError("simulated")))
    with pytest.raises(DeviceLostError):
        scheduler.run_forever()
    with pytest.raises(DeviceLostError):
        job.result(0)


def test_an_item_that_is_taken_apart_and_cannot_be_grouped_fails_its_riders() -> None:
    """Two plans ride on one item; it breaks, and alone they cannot be grouped any more."""

    class Fickle(Broken):
        @override
        def serve(self, group: Hashable, segments: object) -> NoReturn:
            self.where = "group"
            raise RuntimeError("patient text")

    scheduler, fickle = Scheduler(), Fickle("none", RuntimeError("patient text"))
    image = image_for()
    plans = [Planned(Saliency().plan(image, logits(k)), 1) for k in (0, 1)]
    job = scheduler.submit("job", fickle, plans)  # type: ignore[arg-type]
    scheduler.run_until_idle()
    assert [type(each) for each in job.result(0).outcomes] == [MethodError, MethodError]
