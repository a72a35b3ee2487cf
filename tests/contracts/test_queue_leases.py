"""What the queue promises of leases: at least once run, once published."""

import threading
import time

import pytest

from service import redis_server
from service.domain.job import Job, JobKind, Priority, Stage, State
from service.errors.base import Kind
from service.errors.jobs import WorkerLost
from service.queue import redis as redis_queue
from service.queue.base import JobQueue, Lease, Outcome
from tests.support.jobs import OTHER_PACKAGE, PACKAGE, HandClock, Jobs

pytestmark = pytest.mark.redis

DONE = Outcome(State.SUCCEEDED, result="clinic/jobs/1/token")
LEASE = 9  # seconds, as in the settings of these tests


def take(queue: JobQueue, worker: str = "w1") -> Lease:
    lease = queue.lease(worker, "default", [PACKAGE])
    assert lease is not None
    return lease


def submit(queue: JobQueue, job: Job) -> Job:
    return queue.submit(job, digest="d").job


def test_an_empty_queue_leases_nothing(queue: JobQueue) -> None:
    assert queue.lease("w1", "default", [PACKAGE]) is None


def test_a_worker_without_packages_gets_nothing(queue: JobQueue, make_job: Jobs) -> None:
    submit(queue, make_job())
    assert queue.lease("w1", "default", []) is None


def test_a_leased_job_comes_back_as_it_was_sent(queue: JobQueue, make_job: Jobs) -> None:
    job = submit(queue, make_job(label="case:1"))
    lease = take(queue)
    changed = {"state": State.RUNNING, "attempt": 1, "worker": "w1", "started": job.created}
    assert lease.job == job.model_copy(update=changed)


def test_a_leased_job_is_invisible(queue: JobQueue, make_job: Jobs) -> None:
    submit(queue, make_job())
    take(queue)
    assert queue.lease("w2", "default", [PACKAGE]) is None


def test_every_lease_has_its_own_token(queue: JobQueue, make_job: Jobs) -> None:
    for _ in range(5):
        submit(queue, make_job())
    assert len({take(queue).token for _ in range(5)}) == 5


def test_a_worker_gets_only_what_it_serves(queue: JobQueue, make_job: Jobs) -> None:
    submit(queue, make_job(package=OTHER_PACKAGE))
    mine = submit(queue, make_job())
    assert take(queue).job.id == mine.id
    assert queue.lease("w1", "default", [PACKAGE]) is None


def test_a_probe_goes_to_a_worker_that_does_not_serve_its_package_yet(
    queue: JobQueue, make_job: Jobs
) -> None:
    probe = submit(queue, make_job(kind=JobKind.PROBE))
    explanation = submit(queue, make_job())
    assert take(queue).job.id == explanation.id  # one that asks for no probes gets none
    assert queue.lease("w2", "gpu", [], probes=True) is None
    lease = queue.lease("w2", "default", [], probes=True)
    assert lease is not None
    assert (lease.job.id, lease.job.attempt) == (probe.id, 1)
    assert queue.lease("w2", "default", [OTHER_PACKAGE], probes=True) is None


def test_a_probe_wakes_who_waits_for_probes(queue: JobQueue, make_job: Jobs) -> None:
    taken: list[Lease | None] = []
    waiting = threading.Thread(
        target=lambda: taken.append(queue.lease("w1", "default", [], probes=True, wait=5))
    )
    start = time.monotonic()
    waiting.start()
    time.sleep(0.1)
    probe = submit(queue, make_job(kind=JobKind.PROBE))
    waiting.join(5)
    assert time.monotonic() - start < 0.9  # woken: it looks by itself after a second
    (lease,) = taken
    assert lease is not None
    assert lease.job.id == probe.id


def test_a_probe_whose_workers_are_lost_is_a_dead_letter(
    queue: JobQueue, make_job: Jobs, clock: HandClock
) -> None:
    probe = submit(queue, make_job(kind=JobKind.PROBE))
    for _ in range(3):
        assert queue.lease("w1", "default", [], probes=True) is not None
        clock.pass_seconds(LEASE)
        queue.sweep()
    (letter,) = queue.dead_letters()
    assert (letter.job.id, letter.job.kind) == (probe.id, JobKind.PROBE)
    assert letter.reason.code == WorkerLost.code


def test_a_worker_gets_only_jobs_of_its_pool(queue: JobQueue, make_job: Jobs) -> None:
    submit(queue, make_job(pool="gpu"))
    assert queue.lease("w1", "default", [PACKAGE]) is None
    assert queue.lease("w1", "gpu", [PACKAGE]) is not None


def test_of_several_packages_the_oldest_job_comes_first(queue: JobQueue, make_job: Jobs) -> None:
    packages = [PACKAGE, OTHER_PACKAGE, OTHER_PACKAGE, PACKAGE]
    sent = [submit(queue, make_job(package=each)).id for each in packages]
    leases = [queue.lease("w1", "default", [OTHER_PACKAGE, PACKAGE]) for _ in sent]
    assert [each.job.id for each in leases if each] == sent


BOTH = (PACKAGE, OTHER_PACKAGE)


def next_of(queue: JobQueue, *at_hand: str) -> str:
    """Return the id of the job that a worker gets that has these models in memory."""
    lease = queue.lease("w1", "default", BOTH, at_hand=at_hand)
    assert lease is not None
    return lease.job.id


def test_a_job_whose_model_is_at_hand_comes_first(queue: JobQueue, make_job: Jobs) -> None:
    away = submit(queue, make_job(package=OTHER_PACKAGE))
    here = [submit(queue, make_job()) for _ in range(2)]
    assert next_of(queue, PACKAGE) == here[0].id
    assert next_of(queue, *BOTH) == away.id
    assert next_of(queue, OTHER_PACKAGE) == here[1].id  # all that is left


def test_nobody_is_passed_over_for_longer_than_five_seconds(
    queue: JobQueue, make_job: Jobs, clock: HandClock
) -> None:
    away = submit(queue, make_job(package=OTHER_PACKAGE))
    for _ in range(5):
        here = submit(queue, make_job())
        assert next_of(queue, PACKAGE) == here.id
        clock.pass_seconds(1)
    submit(queue, make_job())
    assert next_of(queue, PACKAGE) == away.id


def test_what_is_at_hand_changes_no_priority_and_no_tenants_turn(
    queue: JobQueue, make_job: Jobs
) -> None:
    urgent = submit(queue, make_job(package=OTHER_PACKAGE, priority=Priority.STAT))
    for _ in range(3):
        submit(queue, make_job(cost=1000))
    assert next_of(queue, PACKAGE) == urgent.id
    next_of(queue, PACKAGE)
    other = submit(queue, make_job("other", package=OTHER_PACKAGE))
    assert next_of(queue, PACKAGE) == other.id  # the first tenant had a turn


def test_a_job_whose_worker_was_lost_is_passed_by_none(
    queue: JobQueue, make_job: Jobs, clock: HandClock
) -> None:
    lost = submit(queue, make_job(package=OTHER_PACKAGE))
    assert next_of(queue) == lost.id
    clock.pass_seconds(LEASE)
    queue.sweep()
    submit(queue, make_job())
    assert next_of(queue, PACKAGE) == lost.id


def test_a_silent_worker_loses_its_job(queue: JobQueue, make_job: Jobs, clock: HandClock) -> None:
    job = submit(queue, make_job())
    take(queue)
    clock.pass_seconds(LEASE)
    assert queue.sweep() == 1
    again = take(queue, "w2")
    assert (again.job.id, again.job.attempt, again.job.worker) == (job.id, 2, "w2")


def test_a_lease_holds_until_its_time_is_up(
    queue: JobQueue, make_job: Jobs, clock: HandClock
) -> None:
    submit(queue, make_job())
    take(queue)
    clock.pass_seconds(LEASE - 0.001)
    assert queue.sweep() == 0


def test_a_lost_job_returns_to_the_head_of_its_queue(
    queue: JobQueue, make_job: Jobs, clock: HandClock
) -> None:
    first = submit(queue, make_job())
    second = submit(queue, make_job())
    take(queue)
    clock.pass_seconds(LEASE)
    queue.sweep()
    assert [take(queue).job.id for _ in range(2)] == [first.id, second.id]


def test_a_living_workers_job_is_never_run_twice(
    queue: JobQueue, make_job: Jobs, clock: HandClock
) -> None:
    submit(queue, make_job())
    lease = take(queue)
    for _ in range(500):
        clock.pass_seconds(2)
        assert queue.renew("w1", [lease.token]) == {lease.token}
        assert queue.sweep() == 0
    assert queue.lease("w2", "default", [PACKAGE]) is None
    assert queue.settle(lease, DONE)


def test_only_the_holder_renews(queue: JobQueue, make_job: Jobs) -> None:
    submit(queue, make_job())
    lease = take(queue, "w1")
    assert queue.renew("w2", [lease.token]) == frozenset()
    assert queue.renew("w1", ["0" * 32]) == frozenset()
    assert queue.renew("w1", []) == frozenset()


def test_a_stale_token_changes_nothing_and_is_told_so(
    queue: JobQueue, make_job: Jobs, clock: HandClock
) -> None:
    job = submit(queue, make_job())
    stale = take(queue, "paused")
    clock.pass_seconds(LEASE)
    queue.sweep()
    fresh = take(queue, "w2")
    before = (queue.get("clinic", job.id), queue.events("clinic", job.id))
    assert queue.renew("paused", [stale.token]) == frozenset()
    assert not queue.report(stale, Stage.RENDER, 999)
    assert not queue.settle(stale, DONE)
    assert not queue.release(stale)
    assert (queue.get("clinic", job.id), queue.events("clinic", job.id)) == before
    assert queue.settle(fresh, DONE)
    assert not queue.settle(stale, Outcome(State.FAILED))


def test_settling_publishes_the_outcome(queue: JobQueue, make_job: Jobs, clock: HandClock) -> None:
    job = submit(queue, make_job())
    lease = take(queue)
    clock.pass_seconds(1)
    assert queue.settle(lease, Outcome(State.SUCCEEDED, result="here", partial=True))
    done = queue.get("clinic", job.id)
    assert (done.state, done.result, done.partial) == (State.SUCCEEDED, "here", True)
    assert (done.ended, done.progress, done.stage) == (clock.now, 1000, None)


def test_a_failure_is_kept_with_its_facts(queue: JobQueue, make_job: Jobs) -> None:
    job = submit(queue, make_job())
    failure = WorkerLost("Told as it is.", attempts=1, names=["a", "b"]).failure()
    queue.settle(take(queue), Outcome(State.FAILED, failure=failure))
    assert queue.get("clinic", job.id).failure == failure


def test_settling_twice_changes_nothing(queue: JobQueue, make_job: Jobs, clock: HandClock) -> None:
    job = submit(queue, make_job())
    lease = take(queue)
    assert queue.settle(lease, DONE)
    first = queue.get("clinic", job.id)
    clock.pass_seconds(1)
    assert queue.settle(lease, Outcome(State.FAILED))  # the answer was lost: it stands
    assert queue.get("clinic", job.id) == first


def test_a_job_is_settled_only_into_an_end(queue: JobQueue, make_job: Jobs) -> None:
    submit(queue, make_job())
    with pytest.raises(ValueError, match="ends it"):
        queue.settle(take(queue), Outcome(State.QUEUED))


def test_a_settled_job_is_not_swept(queue: JobQueue, make_job: Jobs, clock: HandClock) -> None:
    submit(queue, make_job())
    queue.settle(take(queue), DONE)
    clock.pass_seconds(LEASE)
    assert queue.sweep() == 0
    assert queue.depth()[0].running == 0


def test_a_job_given_back_does_not_count_the_attempt(queue: JobQueue, make_job: Jobs) -> None:
    job = submit(queue, make_job())
    for _ in range(10):
        lease = take(queue)
        assert lease.job.attempt == 1
        assert queue.release(lease)
    assert queue.get("clinic", job.id).state is State.QUEUED


def test_a_restarted_worker_takes_its_own_jobs_back_at_once(
    queue: JobQueue, make_job: Jobs
) -> None:
    for _ in range(2):
        submit(queue, make_job())
    mine, theirs = take(queue, "w1"), take(queue, "w2")
    assert queue.reclaim("w1") == 1
    assert queue.reclaim("w1") == 0
    again = take(queue, "w1")
    assert (again.job.id, again.job.attempt) == (mine.job.id, 2)
    assert queue.renew("w2", [theirs.token]) == {theirs.token}


@pytest.mark.parametrize("way", ["sweep", "reclaim"])
def test_a_poison_job_is_given_up_after_three_lost_workers(
    queue: JobQueue, make_job: Jobs, clock: HandClock, way: str
) -> None:
    job = submit(queue, make_job())
    last = None
    for attempt in (1, 2, 3):
        last = take(queue)
        assert last.job.attempt == attempt
        clock.pass_seconds(LEASE)
        assert (queue.sweep() if way == "sweep" else queue.reclaim("w1")) == 1
    assert last is not None
    assert not queue.settle(last, DONE)
    given_up = queue.get("clinic", job.id)
    assert given_up.state is State.FAILED
    assert given_up.failure is not None
    assert (given_up.failure.code, given_up.failure.kind) == ("worker_lost", Kind.OURS)
    (letter,) = queue.dead_letters()
    assert (letter.job, letter.reason) == (given_up, given_up.failure)
    assert queue.lease("w2", "default", [PACKAGE]) is None


def test_progress_never_falls_within_an_attempt(
    queue: JobQueue, make_job: Jobs, clock: HandClock
) -> None:
    job = submit(queue, make_job())
    lease = take(queue)
    for told, kept in [(10, 10), (500, 500), (400, 500), (1000, 1000)]:
        assert queue.report(lease, Stage.ATTRIBUTE, told)
        now = queue.get("clinic", job.id)
        assert (now.stage, now.progress) == (Stage.ATTRIBUTE, kept)
    clock.pass_seconds(LEASE)
    queue.sweep()
    assert queue.get("clinic", job.id).progress == 0


def test_a_waiting_worker_is_woken_by_a_job(
    queue: JobQueue, make_job: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_queue, "WAIT_SLICE", 20.0)  # it must be woken, not look again
    monkeypatch.setattr(redis_server, "SOCKET_SECONDS", 40.0)
    found: list[Lease | None] = []
    waiting = threading.Thread(
        target=lambda: found.append(queue.lease("w1", "default", [PACKAGE], wait=30))
    )
    waiting.start()
    time.sleep(0.05)  # so that it most likely waits already; either way it must get the job
    job = submit(queue, make_job())
    waiting.join(10)
    assert [each.job.id for each in found if each] == [job.id]


def test_waiting_ends_when_its_time_is_up(queue: JobQueue) -> None:
    start = time.monotonic()
    assert queue.lease("w1", "default", [PACKAGE], wait=0.05) is None
    assert queue.lease("w1", "default", [], wait=0.05) is None
    assert 0.1 <= time.monotonic() - start < 5


def test_many_threads_never_share_a_job(queue: JobQueue, make_job: Jobs) -> None:
    for _ in range(60):
        submit(queue, make_job())
    taken: list[str] = []

    def work(name: str) -> None:
        while (lease := queue.lease(name, "default", [PACKAGE])) is not None:
            taken.append(lease.job.id)
            assert queue.settle(lease, DONE)

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert len(taken) == len(set(taken)) == 60
