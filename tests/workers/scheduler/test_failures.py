"""Whatever breaks, it ends those at fault and nobody else."""

import gc
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.errors.base import WhylightError
from service.errors.models import (
    DoesNotFit,
    MethodError,
    ModelError,
    NonFiniteScore,
    UnservablePass,
)
from service.telemetry import location
from tests.support.engine import (
    CLASSES,
    LAYER,
    WITHOUT_TOKENS,
    SmallNet,
    attribute,
    image_for,
    logits,
    settled,
    small_runtime,
    through,
)
from workers.device import DeviceLostError
from workers.methods.base import METHODS
from workers.methods.occlusion import Occlusion
from workers.methods.saliency import Saliency
from workers.passes import Exclusive, Forward, Gradient, Plan, Rule, Step
from workers.rows import INPUT, Clean, Given, Noisy
from workers.running import Planned
from workers.runtimes.base import Runtime
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

POISON = 1e6


class Fragile(nn.Module):
    """Fails on a poisonous pixel, and does not fit more than some rows."""

    def __init__(self, inner: SmallNet, rows: int = 1_000) -> None:
        super().__init__()
        self.inner = inner
        self.rows = rows
        self.calls = 0
        self.sizes: list[int] = []
        """Rows of each call, in order."""

        self.pause = 0.0
        """Seconds that a call takes, whatever its rows."""

        self.error: Callable[[], Exception] = lambda: RuntimeError("patient text")

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.sizes.append(len(x))
        time.sleep(self.pause)
        if len(x) > self.rows:
            raise torch.OutOfMemoryError("simulated")
        if bool((x >= POISON).any()):
            raise self.error()
        return self.inner(x)


def fragile_runtime(rows: int = 1_000, **options: Any) -> tuple[Fragile, TorchRuntime]:
    inner = small_runtime().model
    assert isinstance(inner, SmallNet)
    model = Fragile(inner, rows=rows)
    runtime = TorchRuntime(model, (1, 20, 16), (f"inner.{LAYER}",), **options)
    assert runtime.probed.layers
    assert isinstance(runtime.served, Fragile)
    runtime.served.calls = 0
    return runtime.served, runtime


def poisoned() -> Tensor:
    image = image_for(seed=99)
    image[0, 0, 0] = POISON
    return image


def warmed(runtime: Runtime) -> Scheduler:
    """Return a scheduler that has measured saliency's group up to batches of eight."""
    scheduler = Scheduler(slice_seconds=10)
    for size in (1, 2, 4, 8):
        for k in range(size):
            plan = Saliency().plan(image_for(seed=k), logits(0))
            scheduler.submit(f"warm-{k}", runtime, [Planned(plan, 1)])
        scheduler.run_until_idle()
    return scheduler


def test_the_job_that_breaks_a_batch_fails_alone() -> None:
    model, runtime = fragile_runtime()
    scheduler = warmed(runtime)
    images = [poisoned() if k == 5 else image_for(seed=k) for k in range(8)]
    model.calls = 0
    jobs = [
        scheduler.submit(f"{k}", runtime, [Planned(Saliency().plan(image, logits(1)), 1)])
        for k, image in enumerate(images)
    ]
    scheduler.run_until_idle()
    outcomes = [job.result(0).outcomes[0] for job in jobs]
    assert [isinstance(outcome, ModelError) for outcome in outcomes] == [k == 5 for k in range(8)]
    for k in (0, 4, 6, 7):
        expected = attribute(Saliency(), runtime, images[k], logits(1))
        torch.testing.assert_close(outcomes[k].values, expected.values)
    assert model.calls - len(images) < 8  # about two calls for each halving


def test_a_plan_whose_passes_break_together_fails_once_and_its_neighbor_lives() -> None:
    _, runtime = fragile_runtime()
    scheduler = warmed(runtime)

    def plan() -> Plan[None]:
        yield tuple(Gradient(Given(poisoned()[None]), logits(0)) for _ in range(2))

    bad = scheduler.submit("bad", runtime, [Planned(plan(), 2)])
    good = scheduler.submit("good", runtime, [Planned(Saliency().plan(image_for(), logits(0)), 1)])
    scheduler.run_until_idle()
    assert isinstance(bad.result(0).outcomes[0], ModelError)
    assert not isinstance(good.result(0).outcomes[0], Exception)


def test_the_text_of_a_models_exception_is_never_shown() -> None:
    told: list[str] = []
    _, runtime = fragile_runtime()
    scheduler = Scheduler(on_bug=lambda error, job: told.append(f"{job}: {error}"))
    (outcome,) = through(scheduler, runtime, Saliency().plan(poisoned(), logits(1)), job="j")
    assert isinstance(outcome, ModelError)
    assert "patient text" not in str(outcome.failure())
    assert told == ["j: patient text"]


def test_a_failure_tells_where_it_rose_and_keeps_no_tensor_alive() -> None:
    """The log wants module and line; the failed frames would keep the batch's memory."""
    kept: list[weakref.ref[Tensor]] = []
    told: list[Exception] = []

    class Wasteful(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            waste = x.repeat(1, 8, 1, 1)
            kept.append(weakref.ref(waste))
            if len(kept) > probed:
                raise RuntimeError
            return waste.flatten(1)

    probed = 1_000
    runtime = TorchRuntime(Wasteful(), (1, 20, 16))
    assert runtime.probed.outputs
    probed = len(kept)
    scheduler = Scheduler(on_bug=lambda error, _: told.append(error))
    (outcome,) = through(scheduler, runtime, Saliency().plan(image_for(), logits(1)))
    assert isinstance(outcome, ModelError)
    assert location(told[0]).startswith(__name__)
    assert kept[-1]() is None


def test_a_target_at_fault_is_told_to_the_log() -> None:
    told: list[Exception] = []
    scheduler = Scheduler(on_bug=lambda error, _: told.append(error))
    through(scheduler, small_runtime(), Plans.selector(image_for()))
    assert [type(error) for error in told] == [KeyError]


def test_a_runtime_that_nobody_holds_is_not_kept_by_what_was_measured() -> None:
    runtime, scheduler = small_runtime(), Scheduler()
    through(scheduler, runtime, Saliency().plan(image_for(), logits(1)))
    gone = weakref.ref(runtime)
    del runtime
    gc.collect()
    assert gone() is None


def test_a_batch_that_does_not_fit_is_halved_and_the_limit_is_kept() -> None:
    model, runtime = fragile_runtime(rows=5)
    method, image = Occlusion(window=4, stride=4), image_for()
    expected = attribute(method, runtime, image, logits(1), chunk=4)
    model.pause, model.sizes = 0.03, []  # a call's own price makes large batches worth while
    scheduler = Scheduler(slice_seconds=10)
    (maps,) = through(scheduler, runtime, method.plan(image, logits(1)))
    torch.testing.assert_close(maps.values, expected.values)
    assert max(model.sizes) > 5
    model.sizes = []
    through(scheduler, runtime, method.plan(image, logits(1)))
    assert max(model.sizes) <= 5
    assert sum(model.sizes) == 21


def test_an_image_that_does_not_fit_alone_is_told_so() -> None:
    model, runtime = fragile_runtime(rows=5)
    model.rows = 0
    (outcome,) = through(Scheduler(), runtime, Saliency().plan(image_for(), logits(1)))
    assert isinstance(outcome, DoesNotFit)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("Failed to allocate memory for requested buffer of size 4"),
    ],
)
def test_every_librarys_full_memory_is_recognized(error: Exception) -> None:
    model, runtime = fragile_runtime()
    model.error = lambda: error
    (outcome,) = through(Scheduler(), runtime, Saliency().plan(poisoned(), logits(1)))
    assert isinstance(outcome, DoesNotFit)


def test_lent_work_that_does_not_fit_is_told_so_and_is_no_bug() -> None:
    _, runtime = fragile_runtime(rows=5)
    assert isinstance(runtime.model, Fragile)
    runtime.model.rows = 0
    bugs: list[Exception] = []

    def plan() -> Plan[Tensor]:
        given = yield Exclusive(lambda lease: lease.model(image_for()[None]), 5.0)
        return given

    scheduler = Scheduler(on_bug=lambda error, _: bugs.append(error))
    (outcome,) = through(scheduler, runtime, plan())
    assert isinstance(outcome, DoesNotFit)
    assert bugs == []


def test_a_lost_device_ends_the_loop_and_every_job() -> None:
    model, runtime = fragile_runtime()
    model.error = lambda: torch.AcceleratorError("device-side assert")
    scheduler = Scheduler()
    job = scheduler.submit("job", runtime, [Planned(Saliency().plan(poisoned(), logits(1)), 1)])
    with pytest.raises(DeviceLostError):
        scheduler.run_forever()
    with pytest.raises(DeviceLostError):
        job.result(0)
    with pytest.raises(WhylightError):
        scheduler.submit("next", runtime, [])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_score_that_is_not_finite_gives_no_map(value: float) -> None:
    """Its gradient map would be finite and plausible."""
    runtime, image = small_runtime(), image_for()
    image[0, 3, 3] = value
    plans = [settled(METHODS[name](), runtime).plan(image, logits(1)) for name in WITHOUT_TOKENS]
    good = Saliency().plan(image_for(seed=1), logits(1))
    scheduler = Scheduler()
    bad = scheduler.submit("bad", runtime, [Planned(plan, 1) for plan in plans])
    neighbor = scheduler.submit("good", runtime, [Planned(good, 1)])
    scheduler.run_until_idle()
    assert all(isinstance(each, NonFiniteScore) for each in bad.result(0).outcomes)
    (maps,) = neighbor.result(0).outcomes
    expected = attribute(Saliency(), runtime, image_for(seed=1), logits(1))
    torch.testing.assert_close(maps.values, expected.values)


@dataclass(frozen=True)
class Faulty:
    """A target that breaks, in one way or another."""

    how: str

    @property
    def weights(self) -> None:
        return None

    def __call__(self, outputs: Tensor) -> Tensor:
        if self.how == "raises":
            raise KeyError("patient text")
        if self.how == "shape":
            return outputs
        return outputs[:, 0].detach()


class BadRows(Given):
    """Rows that cannot be written."""

    def fill(self, *_: object) -> None:
        raise ZeroDivisionError


class Plans:
    """Plans at fault, each in its own way."""

    @staticmethod
    def body(image: Tensor) -> Plan[Step]:
        yield Forward(Clean(image), logits(0))
        raise IndexError("patient text")

    @staticmethod
    def before_any_pass(image: Tensor) -> Plan[Step]:
        raise IndexError(str(image.shape))
        yield Forward(Clean(image), logits(0))

    @staticmethod
    def fold(image: Tensor) -> Plan[Step]:
        def fold(_start: int, _step: Step) -> None:
            raise IndexError

        yield Forward(Noisy(image, 0.1, 1, 12), logits(0), fold=fold)

    @staticmethod
    def rows(image: Tensor) -> Plan[Step]:
        yield Forward(BadRows(torch.stack([image] * 3)), logits(0))

    @staticmethod
    def no_rows(image: Tensor) -> Plan[Step]:
        yield Forward(Given(image[:0, None]), logits(0))

    @staticmethod
    def no_pass(_image: Tensor) -> Plan[Step]:
        yield ()

    @staticmethod
    def unknown_class(image: Tensor) -> Plan[Step]:
        yield Forward(Clean(image), logits(CLASSES))

    @staticmethod
    def selector(image: Tensor) -> Plan[Step]:
        yield Forward(Clean(image), (Faulty("raises"),))

    @staticmethod
    def selector_shape(image: Tensor) -> Plan[Step]:
        yield Forward(Clean(image), (Faulty("shape"),))

    @staticmethod
    def selector_gradient(image: Tensor) -> Plan[Step]:
        yield Gradient(Clean(image), (Faulty("detached"),))

    @staticmethod
    def layer(image: Tensor) -> Plan[Step]:
        yield Gradient(Clean(image), logits(0), at=("features.9",))


NEIGHBORS = ("saliency", "grad_cam", "guided_backprop", "integrated_gradients", "occlusion")
FAULTS = [name for name in vars(Plans) if not name.startswith("_")]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_plan_at_fault_spares_its_neighbors_and_its_own_job(fault: str) -> None:
    """The job's other methods, on the very same rows, and all other jobs succeed."""
    runtime, image = small_runtime(), image_for()
    scheduler = Scheduler()
    other_image = image_for(seed=4)
    good = [settled(METHODS[name](), runtime).plan(image, logits(1, 2)) for name in NEIGHBORS]
    job = scheduler.submit(
        "job", runtime, [Planned(plan, 1) for plan in (getattr(Plans, fault)(image), *good)]
    )
    other = scheduler.submit(
        "other", runtime, [Planned(Saliency().plan(other_image, logits(3)), 1)]
    )
    scheduler.run_until_idle()
    bad, *maps = job.result(0).outcomes
    assert isinstance(bad, WhylightError)
    assert "patient text" not in str(bad.failure())
    assert bad.__traceback__ is None
    for name, given in zip(NEIGHBORS, maps, strict=True):
        expected = attribute(settled(METHODS[name](), runtime), runtime, image, logits(1, 2))
        torch.testing.assert_close(given.values, expected.values)
    (neighbor,) = other.result(0).outcomes
    expected = attribute(Saliency(), runtime, other_image, logits(3))
    torch.testing.assert_close(neighbor.values, expected.values)


def test_what_the_runtime_cannot_serve_fails_by_name() -> None:
    runtime = small_runtime()
    (outcome,) = through(Scheduler(), runtime, Plans.layer(image_for()))
    assert isinstance(outcome, UnservablePass)
    assert "features.9" in outcome.detail


def test_a_failed_plans_cleanup_has_run_before_the_job_is_settled() -> None:
    cleaned: list[str] = []

    def plan(image: Tensor) -> Plan[None]:
        try:
            yield Forward(Clean(image), (Faulty("raises"),))
        finally:
            cleaned.append("done")

    runtime, scheduler = small_runtime(), Scheduler()
    job = scheduler.submit("job", runtime, [Planned(plan(image_for()), 1)])
    seen_at_settling: list[list[str]] = []
    job.add_done_callback(lambda _: seen_at_settling.append(list(cleaned)))
    scheduler.run_until_idle()
    assert seen_at_settling == [["done"]]
    assert isinstance(job.result(0).outcomes[0], MethodError)


def test_derivatives_are_plain_unless_a_pass_says_otherwise() -> None:
    assert Gradient(Clean(image_for()), logits(0), at=(INPUT,)).rule is Rule.PLAIN


def test_a_job_that_waits_for_nothing_ends_with_an_error() -> None:
    """Its plan is open and no work of it is left: without the check it would wait for ever."""
    scheduler, runtime = Scheduler(), small_runtime()
    ended: list[str] = []

    def plan() -> Plan[Tensor]:
        def lose_the_rest(start: int, step: Step) -> None:  # noqa: ARG001 - a fold's call
            scheduler._jobs[0].items.clear()

        try:
            rows = Given(torch.stack([image_for(seed=k) for k in range(4)]))
            yield Forward(rows, logits(0), fold=lose_the_rest)
        finally:
            ended.append("its own cleanup")
        return image_for()

    job = scheduler.submit("job", runtime, [Planned(plan(), 4)])
    beside = scheduler.submit(
        "beside", runtime, [Planned(Saliency().plan(image_for(), logits(0)), 1)]
    )
    scheduler.run_until_idle()
    (outcome,) = job.result(0).outcomes
    assert isinstance(outcome, MethodError)
    assert "waits for nothing" in outcome.detail
    assert ended == ["its own cleanup"]
    assert not isinstance(beside.result(0).outcomes[0], WhylightError)
