import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from service.backends import Backends
from service.domain.job import Job, JobKind, Stage, State
from service.errors.jobs import Cancelled, Draining
from service.queue.base import Lease, Outcome
from service.settings import Settings
from service.telemetry import Log
from tests.support import redis_server
from tests.support.hospital import PACKAGE, blank_job
from workers.held import LIMITS, Held, LeaseLost
from workers.leeway import leeway
from workers.loop import Loop
from workers.patience import patiently

Lead = Callable[[Held], None]


@contextmanager
def working(backends: Backends, settings: Settings, lead: Lead, name: str = "w1") -> Iterator[Loop]:
    loop = Loop(
        name=name,
        queue=backends.queue,
        packages=lambda: (PACKAGE,),
        lead=lead,
        settings=settings,
        log=Log(worker=name),
    )
    loop.start()
    try:
        yield loop
    finally:
        loop.drain()
        loop.join()


def submit(backends: Backends) -> Job:
    job = blank_job()
    return backends.queue.submit(job, digest=job.id).job


def until(wanted: Callable[[], bool], seconds: float = 10.0) -> float:
    """Wait for something; return how long it took, fail when it does not come."""
    start = time.monotonic()
    while not wanted():
        assert time.monotonic() - start < seconds, "did not come in time"
        time.sleep(0.02)
    return time.monotonic() - start


def state_of(backends: Backends, job: Job) -> Job:
    return backends.queue.get(job.tenant, job.id)


def succeed(backends: Backends) -> Lead:
    def lead(held: Held) -> None:
        backends.queue.settle(held.lease, Outcome(State.SUCCEEDED, result="r"))

    return lead


def linger(
    seconds: float, then: Lead, seen: list[Exception] | None = None, stopped: Lead = lambda _: None
) -> Lead:
    """Lead a job by making progress for a while, as long as nothing stops it."""

    def lead(held: Held) -> None:
        end = time.monotonic() + seconds
        try:
            with held.stage(Stage.ATTRIBUTE):
                while time.monotonic() < end:
                    held.check()
                    held.report(1 - (end - time.monotonic()) / seconds)
                    time.sleep(0.02)
        except (Cancelled, Draining, LeaseLost) as error:
            (seen if seen is not None else []).append(error)
            stopped(held)
        else:
            then(held)

    return lead


def test_a_waiting_job_is_led_to_its_end(backends: Backends, settings: Settings) -> None:
    job = submit(backends)
    with working(backends, settings, succeed(backends)):
        until(lambda: state_of(backends, job).state is State.SUCCEEDED)
    assert state_of(backends, job).attempt == 1


def test_a_living_worker_keeps_a_job_far_longer_than_its_lease(
    backends: Backends, settings: Settings
) -> None:
    job = submit(backends)
    runs: list[str] = []

    def lead(held: Held) -> None:
        runs.append(held.token)
        linger(4.0, succeed(backends))(held)

    with working(backends, settings, lead, "w1"), working(backends, settings, lead, "w2"):
        until(lambda: state_of(backends, job).state is State.SUCCEEDED)
    assert len(runs) == 1
    assert state_of(backends, job).attempt == 1


def test_stage_and_progress_reach_the_record(backends: Backends, settings: Settings) -> None:
    job = submit(backends)
    with working(backends, settings, linger(1.5, succeed(backends))):
        until(lambda: state_of(backends, job).progress > 300)
        assert state_of(backends, job).stage is Stage.ATTRIBUTE
        until(lambda: state_of(backends, job).state is State.SUCCEEDED)
    progress = [event.progress for event in backends.queue.events(job.tenant, job.id)]
    assert progress == sorted(progress)
    assert len(progress) < 14  # 1.5 s at five reports a second, and the changes of state


def test_a_running_job_learns_within_two_seconds_that_it_is_cancelled(
    backends: Backends, settings: Settings
) -> None:
    job = submit(backends)
    seen: list[Exception] = []
    with working(backends, settings, linger(30.0, succeed(backends), seen)):
        until(lambda: state_of(backends, job).state is State.RUNNING)
        backends.queue.cancel(job.tenant, job.id)
        assert until(lambda: bool(seen)) < 2.0
    assert isinstance(seen[0], Cancelled)


def test_a_drain_stops_what_does_not_end_in_the_grace(
    backends: Backends, settings: Settings
) -> None:
    def release(held: Held) -> None:
        backends.queue.release(held.lease)

    early = submit(backends)
    seen: list[Exception] = []
    lead = linger(30.0, succeed(backends), seen, release)
    with working(backends, settings, lead) as loop:
        until(lambda: len(loop.hand.all()) == 1)
        loop.drain()
        late = submit(backends)
        loop.join()
    assert isinstance(seen[0], Draining)
    assert loop.ended.is_set()
    for job in (early, late):
        record = state_of(backends, job)
        assert record.state is State.QUEUED
        assert record.attempt == 0


def test_a_drain_lets_a_job_end_that_can(backends: Backends, settings: Settings) -> None:
    job = submit(backends)
    with working(backends, settings, linger(0.3, succeed(backends))) as loop:
        until(lambda: len(loop.hand.all()) == 1)
        loop.drain()
    assert state_of(backends, job).state is State.SUCCEEDED


def test_no_more_jobs_are_leased_than_there_are_lines(
    backends: Backends, settings: Settings
) -> None:
    jobs = [submit(backends) for _ in range(4)]
    with working(backends, settings, linger(0.8, succeed(backends))) as loop:
        most = 0

        def done() -> bool:
            nonlocal most
            most = max(most, len(loop.hand.all()))
            return all(state_of(backends, job).state is State.SUCCEEDED for job in jobs)

        until(done)
    assert most == 2


def test_a_probe_takes_no_line_of_an_explanation(backends: Backends, settings: Settings) -> None:
    with working(backends, settings, succeed(backends)) as loop:
        probe = blank_job().model_copy(update={"kind": JobKind.PROBE})
        probes = [Held(Lease(probe, f"t{number}")) for number in range(settings.worker.jobs)]
        for each in probes:
            loop.hand.take(each)
        job = submit(backends)
        until(lambda: state_of(backends, job).state is State.SUCCEEDED)
        for each in probes:
            loop.hand.drop(each)


def test_a_restarted_worker_takes_its_jobs_back_at_once(
    backends: Backends, settings: Settings
) -> None:
    job = submit(backends)
    assert backends.queue.lease("w1", "default", [PACKAGE]) is not None
    start = time.monotonic()
    with working(backends, settings, succeed(backends), "w1"):
        until(lambda: state_of(backends, job).state is State.SUCCEEDED)
    assert time.monotonic() - start < 1.2  # sooner than the lease ends
    assert state_of(backends, job).attempt == 2


def test_a_dead_stage_loses_its_job_to_another_worker(
    backends: Backends, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, Stage.DECODE, 0.5)
    job = submit(backends)
    release = threading.Event()

    def hang_once(held: Held) -> None:
        if held.lease.job.attempt > 1:
            succeed(backends)(held)
            return
        with held.stage(Stage.DECODE):
            release.wait(8.0)
        with pytest.raises(LeaseLost):
            held.check()

    with working(backends, settings, hang_once):
        until(lambda: state_of(backends, job).state is State.SUCCEEDED)
        release.set()
    assert state_of(backends, job).attempt == 2


def test_a_stage_of_a_large_volume_may_be_silent_for_longer(
    backends: Backends, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, Stage.PREPARE, 0.0)
    job = submit(backends)

    def think(held: Held) -> None:
        held.allow(leeway((300, 512, 512)))
        with held.stage(Stage.PREPARE):
            time.sleep(1.5)  # several renewals
            assert not held.stalled
        succeed(backends)(held)

    with working(backends, settings, think):
        until(lambda: state_of(backends, job).state is State.SUCCEEDED)
    assert state_of(backends, job).attempt == 1


def test_a_worker_outlives_its_redis_and_settles_later(
    backends: Backends, settings: Settings, server: redis_server.Server
) -> None:
    job = submit(backends)

    def lead(held: Held) -> None:
        linger(0.5, lambda _: None)(held)
        outcome = Outcome(State.SUCCEEDED, result="r")
        patiently(lambda: backends.queue.settle(held.lease, outcome), threading.Event())

    with working(backends, settings, lead) as loop:
        until(lambda: state_of(backends, job).state is State.RUNNING)
        server.kill()
        time.sleep(0.8)
        server.start()
        until(lambda: state_of(backends, job).state is State.SUCCEEDED)
        assert not loop.ended.is_set()
        after = submit(backends)
        until(lambda: state_of(backends, after).state is State.SUCCEEDED)


def test_a_job_that_may_be_poison_runs_alone(backends: Backends, settings: Settings) -> None:
    suspect = submit(backends)
    for _ in range(2):  # two workers were lost on it
        assert backends.queue.lease("lost", "default", [PACKAGE]) is not None
        backends.queue.reclaim("lost")
    others = [submit(backends) for _ in range(3)]
    running: set[str] = set()
    together: set[str] = set()

    def lead(held: Held) -> None:
        running.add(held.lease.job.id)
        if suspect.id in running:
            together.update(running)
        linger(0.4, succeed(backends))(held)
        running.remove(held.lease.job.id)

    with working(backends, settings, lead):
        jobs = [suspect, *others]
        until(lambda: all(state_of(backends, job).state is State.SUCCEEDED for job in jobs))
    assert together == {suspect.id}
