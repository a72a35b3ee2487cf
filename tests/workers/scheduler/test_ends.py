"""How jobs end before their time, what they show on the way, and whose thread it is."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial

import pytest
import torch
from torch import Tensor

from service.errors.jobs import Cancelled, DeadlineExceeded, Draining
from tests.support.engine import (
    attribute,
    image_for,
    logits,
    settled,
    small_runtime,
    through,
)
from workers.methods.base import METHODS, Method
from workers.methods.saliency import Saliency
from workers.passes import Forward, Plan, Step, TimeUp
from workers.rows import Noisy
from workers.running import Planned, Report
from workers.runtimes.fingerprint import fingerprint
from workers.scheduler import Scheduler, WrongThreadError

PATIENCE = 20.0


def long(count: int = 100_000, cleaned: list[str] | None = None) -> Plan[int]:
    """A plan that would take minutes."""
    try:
        step: Step = yield Forward(
            Noisy(image_for(), 0.1, 1, count), logits(0), fold=lambda _start, _step: None
        )
        return step.count
    finally:
        if cleaned is not None:
            cleaned.append("done")


def patient(count: int = 100_000) -> Plan[tuple[str, int]]:
    """A plan that has something to show when its time is up."""
    done = 0

    def fold(_start: int, step: Step) -> None:
        nonlocal done
        done += step.count

    try:
        yield Forward(Noisy(image_for(), 0.1, 1, count), logits(0), fold=fold)
    except TimeUp:
        return ("partial", done)
    return ("whole", done)


def stubborn() -> Plan[None]:
    """A plan that asks for more when its time is up."""
    rows = Noisy(image_for(), 0.1, 1, 100_000)
    try:
        yield Forward(rows, logits(0), fold=lambda _start, _step: None)
    except TimeUp:
        yield Forward(rows, logits(0))


@pytest.fixture
def running() -> Iterator[Scheduler]:
    """A scheduler in its own thread."""
    scheduler = Scheduler(slice_seconds=0.02)
    thread = threading.Thread(target=scheduler.run_forever)
    thread.start()
    yield scheduler
    scheduler.stop(drain=False)
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_cancelled_job_ends_at_once_and_its_cleanup_has_run(running: Scheduler) -> None:
    cleaned: list[str] = []
    started = threading.Event()
    runtime = small_runtime()
    job = running.submit(
        "job",
        runtime,
        [Planned(long(cleaned=cleaned), 100_000)],
        on_progress=lambda _: started.set(),
    )
    other = running.submit("other", runtime, [Planned(long(300), 300)])
    assert started.wait(PATIENCE)
    running.cancel("job")
    assert isinstance(job.result(2.0).outcomes[0], Cancelled)
    assert cleaned == ["done"]
    assert other.result(PATIENCE).outcomes == (300,)


def test_cancelling_what_is_unknown_does_nothing(running: Scheduler) -> None:
    running.cancel("nobody")
    job = running.submit("job", small_runtime(), [Planned(long(10), 10)])
    assert job.result(PATIENCE).outcomes == (10,)


def test_a_job_that_was_cancelled_keeps_what_its_other_methods_gave() -> None:
    runtime, scheduler = small_runtime(), Scheduler(slice_seconds=1e-6)
    plans = [Planned(Saliency().plan(image_for(), logits(0)), 1), Planned(long(500), 500)]
    job = scheduler.submit("job", runtime, plans)
    for _ in range(20):
        scheduler.turn()
    scheduler.cancel("job")
    scheduler.turn()
    maps, cancelled = job.result(0).outcomes
    assert maps.values.shape == (1, 1, 20, 16)
    assert isinstance(cancelled, Cancelled)


def test_short_methods_of_a_job_are_done_before_its_time_is_up() -> None:
    """Though asked for after a long one, whose rows go into the same batches as some of theirs."""
    runtime, image, scheduler = small_runtime(), image_for(), Scheduler()
    names = ("saliency", "integrated_gradients", "deep_lift")
    short = [settled(METHODS[name](), runtime) for name in names]
    alone = [attribute(each, runtime, image, logits(0)) for each in short]
    plans = [
        Planned(patient(), 100_000),
        *(Planned(e.plan(image, logits(0)), e.estimate(image.shape, 1).rows) for e in short),
    ]
    future = scheduler.submit("job", runtime, plans, deadline=time.monotonic() + 2.0)
    scheduler.run_until_idle()
    long_one, *outcomes = future.result(0).outcomes
    assert long_one[0] == "partial"
    for maps, expected in zip(outcomes, alone, strict=True):
        torch.testing.assert_close(maps.values, expected.values)


def test_a_late_job_fails_and_a_plan_that_can_gives_what_it_has() -> None:
    cleaned: list[str] = []
    runtime, scheduler = small_runtime(), Scheduler()
    deadline = time.monotonic() + 0.2
    jobs = [
        scheduler.submit(f"{k}", runtime, [Planned(plan, 100_000)], deadline=deadline)
        for k, plan in enumerate((long(cleaned=cleaned), patient(), stubborn()))
    ]
    scheduler.run_until_idle()
    late, in_part, refused = (job.result(0).outcomes[0] for job in jobs)
    assert isinstance(late, DeadlineExceeded)
    assert cleaned == ["done"]
    assert in_part[0] == "partial"
    assert 0 < in_part[1] < 100_000
    assert isinstance(refused, DeadlineExceeded)


def test_jobs_beside_a_late_one_get_their_whole_and_equal_maps() -> None:
    """The time of the one is up while the others, with whom it shares batches, are on their way."""
    runtime, scheduler = small_runtime(), Scheduler(slice_seconds=0.005)
    image, target = image_for(seed=5), logits(3)
    healthy = [settled(METHODS[name](samples=1024), runtime) for name in ("rise", "smooth_grad")]
    alone = [attribute(method, small_runtime(), image, target).values for method in healthy]
    late = settled(METHODS["rise"](samples=16384), runtime)
    runtime.served.batches.clear()
    deadline = time.monotonic() + 5.0  # enough for all to be on their way, also on a busy machine
    shares: dict[str, float] = {}

    def submitted(name: str, method: Method, image: Tensor, **options: float) -> Future[Report]:
        rows = method.estimate(image.shape, 1).rows
        plans = [Planned(method.plan(image, target), rows)]
        told = partial(shares.__setitem__, name)
        return scheduler.submit(name, runtime, plans, on_progress=told, **options)

    hurried = submitted("late", late, image_for(), deadline=deadline)
    jobs = [submitted(each.name, each, image, deadline=deadline + 600) for each in healthy]
    while min(shares.get(each, 0.0) for each in ("late", "rise", "smooth_grad")) < 0.02:
        scheduler.turn()
    assert not any(job.done() for job in (hurried, *jobs))
    time.sleep(max(0.0, deadline - time.monotonic()))
    scheduler.turn()
    assert hurried.done()
    assert not any(job.done() for job in jobs)
    scheduler.run_until_idle()
    (cut_short,) = hurried.result(0).outcomes
    assert cut_short.partial
    assert 0 < cut_short.extras[0]["samples"] < 16384
    for job, expected in zip(jobs, alone, strict=True):
        (maps,) = job.result(0).outcomes
        assert not maps.partial
        torch.testing.assert_close(maps.values, expected)


def test_progress_never_falls_and_is_whole_only_at_the_end() -> None:
    shares: list[float] = []
    runtime, scheduler = small_runtime(), Scheduler(slice_seconds=0.002)
    names = ("integrated_gradients", "occlusion", "grad_cam")
    methods = [settled(METHODS[name](), runtime) for name in names]
    image = image_for()
    planned = [
        Planned(each.plan(image, logits(0)), each.estimate(image.shape, 1).rows) for each in methods
    ]
    scheduler.submit("job", runtime, planned, on_progress=shares.append)
    scheduler.run_until_idle()
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(share < 1.0 for share in shares[:-1])
    assert len(set(shares)) > 5


def test_progress_does_not_fall_when_a_plan_asks_for_more_than_it_said() -> None:
    shares: list[float] = []

    def greedy() -> Plan[None]:
        for k in range(5):
            yield Forward(Noisy(image_for(), 0.1, k, 20), logits(0))

    runtime, scheduler = small_runtime(), Scheduler()
    scheduler.submit("job", runtime, [Planned(greedy(), 20)], on_progress=shares.append)
    scheduler.run_until_idle()
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert max(shares[:-1]) < 1.0


def test_a_broken_progress_callback_does_not_end_the_job() -> None:
    def broken(_share: float) -> None:
        raise OSError

    (count,) = through(Scheduler(), small_runtime(), long(30), on_progress=broken)
    assert count == 30


def test_another_thread_may_not_run_the_scheduler(running: Scheduler) -> None:
    assert running.call(threading.get_ident).result(PATIENCE) != threading.get_ident()
    with pytest.raises(WrongThreadError):
        running.turn()
    with pytest.raises(WrongThreadError):
        running.forget(small_runtime())


def test_everything_of_a_job_runs_in_the_owner_thread(running: Scheduler) -> None:
    owner = running.call(threading.get_ident).result(PATIENCE)
    seen: set[int] = set()

    def note(*_: object) -> None:
        seen.add(threading.get_ident())

    class Watched(Noisy):
        def fill(self, *args: object) -> None:
            note()
            Noisy.fill(self, *args)  # type: ignore[arg-type]

    def plan() -> Plan[None]:
        note()
        try:
            yield Forward(Watched(image_for(), 0.1, 1, 9), logits(0), fold=note)
        finally:
            note()

    runtime = small_runtime()
    runtime.served.register_forward_pre_hook(note)
    runtime._state = fingerprint(runtime.model, runtime.served)  # the hook is ours
    job = running.submit("job", runtime, [Planned(plan(), 9)], on_progress=note)
    assert job.result(PATIENCE).outcomes == (None,)
    assert seen == {owner}


def test_a_call_that_fails_tells_its_caller_alone(running: Scheduler) -> None:
    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        running.call(fail).result(PATIENCE)
    assert running.call(lambda: 7).result(PATIENCE) == 7


def test_many_threads_may_hand_jobs_in(running: Scheduler) -> None:
    runtime = small_runtime()
    expected = {
        k: through(Scheduler(), small_runtime(), Saliency().plan(image_for(seed=k), logits(k % 5)))
        for k in range(12)
    }
    wrong: list[int] = []

    def client(k: int) -> None:
        plan = Saliency().plan(image_for(seed=k), logits(k % 5))
        job = running.submit(f"{k}", runtime, [Planned(plan, 1)])
        (maps,) = job.result(PATIENCE).outcomes
        if not torch.allclose(maps.values, expected[k][0].values):
            wrong.append(k)

    threads = [threading.Thread(target=client, args=(k,)) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong


def test_draining_finishes_what_is_at_hand_and_takes_nothing_new() -> None:
    scheduler, runtime = Scheduler(), small_runtime()
    job = scheduler.submit("job", runtime, [Planned(long(200), 200)])
    scheduler.stop(drain=True)
    with pytest.raises(Draining):
        scheduler.submit("late", runtime, [])
    with pytest.raises(Draining):
        scheduler.call(lambda: None)
    scheduler.run_forever()
    assert job.result(0).outcomes == (200,)


def test_stopping_at_once_gives_jobs_back_as_draining() -> None:
    scheduler, runtime = Scheduler(), small_runtime()
    job = scheduler.submit("job", runtime, [Planned(long(), 100_000)])
    scheduler.stop(drain=False)
    scheduler.run_forever()
    assert isinstance(job.result(0).outcomes[0], Draining)


def test_a_caller_cannot_break_the_loop_by_its_future() -> None:
    scheduler, runtime = Scheduler(), small_runtime()
    job = scheduler.submit("job", runtime, [Planned(long(20), 20)])
    assert not job.cancel()
    scheduler.run_until_idle()
    assert job.result(0).outcomes == (20,)
