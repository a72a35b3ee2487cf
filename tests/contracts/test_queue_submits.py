"""What the queue promises of submits, cancels and turns."""

from collections import Counter
from datetime import timedelta

import pytest

from service.domain.job import Job, Priority, State
from service.errors.jobs import QueueFull
from service.errors.requests import Conflict, KeyReused, NotFound, TooLarge
from service.queue.base import Filter, JobQueue, Outcome
from service.queue.redis import RedisQueue
from service.redis_server import RedisServer
from service.settings import QueueSettings
from tests.support.jobs import OTHER_PACKAGE, PACKAGE, HandClock, Jobs

pytestmark = pytest.mark.redis


def drain(queue: JobQueue, most: int = 10_000) -> list[Job]:
    taken: list[Job] = []
    while len(taken) < most and (lease := queue.lease("w", "default", [PACKAGE])):
        taken.append(lease.job)
        queue.settle(lease, Outcome(State.SUCCEEDED))
    return taken


def test_the_same_key_and_body_give_the_same_job(queue: JobQueue, make_job: Jobs) -> None:
    first = queue.submit(make_job(), digest="d", key="k")
    again = queue.submit(make_job(), digest="d", key="k")
    assert not first.replayed
    assert again.replayed
    assert again.job == first.job
    assert len(drain(queue)) == 1


def test_a_replay_tells_how_the_job_stands_now(queue: JobQueue, make_job: Jobs) -> None:
    queue.submit(make_job(), digest="d", key="k")
    drain(queue)
    assert queue.submit(make_job(), digest="d", key="k").job.state is State.SUCCEEDED


def test_the_same_key_with_another_body_is_refused(queue: JobQueue, make_job: Jobs) -> None:
    queue.submit(make_job(), digest="d", key="k")
    with pytest.raises(KeyReused):
        queue.submit(make_job(), digest="e", key="k")
    assert len(drain(queue)) == 1


def test_keys_of_different_tenants_are_different(queue: JobQueue, make_job: Jobs) -> None:
    queue.submit(make_job("a"), digest="d", key="k")
    assert not queue.submit(make_job("b"), digest="e", key="k").replayed


def test_a_key_holds_for_a_day(queue: JobQueue, make_job: Jobs, clock: HandClock) -> None:
    first = queue.submit(make_job(), digest="d", key="k").job
    clock.pass_seconds(24 * 3600 - 1)
    assert queue.submit(make_job(), digest="d", key="k").job.id == first.id
    clock.pass_seconds(1)
    assert queue.submit(make_job(), digest="d", key="k").job.id != first.id


def test_a_key_whose_job_is_gone_may_be_used_again(queue: JobQueue, make_job: Jobs) -> None:
    first = queue.submit(make_job(), digest="d", key="k").job
    queue.cancel("clinic", first.id)
    queue.forget("clinic", first.id)
    assert not queue.submit(make_job(), digest="e", key="k").replayed


def test_what_a_key_made_is_found_without_a_submit(
    queue: JobQueue, make_job: Jobs, clock: HandClock
) -> None:
    assert queue.earlier("clinic", digest="d", key="k") is None
    job = queue.submit(make_job(), digest="d", key="k").job
    found = queue.earlier("clinic", digest="d", key="k")
    assert found is not None
    assert (found.job, found.replayed) == (job, True)
    with pytest.raises(KeyReused):
        queue.earlier("clinic", digest="e", key="k")
    assert queue.earlier("rival", digest="d", key="k") is None
    clock.pass_seconds(24 * 3600)
    assert queue.earlier("clinic", digest="d", key="k") is None


def test_a_submit_sent_twice_queues_one_job(queue: JobQueue, make_job: Jobs) -> None:
    job = make_job()
    queue.submit(job, digest="d")
    assert queue.submit(job, digest="d").replayed
    assert len(drain(queue)) == 1


def test_a_key_may_name_a_patient_and_redis_never_sees_it(
    queue: JobQueue, redis: RedisServer, make_job: Jobs
) -> None:
    queue.submit(make_job(), digest="d", key="CANARY^JANE")
    with redis.client() as client:
        assert client.keys("*once*")
        assert not [key for key in client.keys("*") if "CANARY" in key]


def test_a_pool_takes_no_more_device_time_than_allowed(
    redis: RedisServer, settings: QueueSettings, make_job: Jobs
) -> None:
    small = settings.model_copy(update={"capacity": timedelta(seconds=1)})
    queue = RedisQueue(redis, small)
    queue.submit(make_job(cost=600), digest="d")
    with pytest.raises(QueueFull) as refused:
        queue.submit(too_much := make_job(cost=401), digest="d", key="k")
    with pytest.raises(NotFound):
        queue.get("clinic", too_much.id)
    assert refused.value.facts == {"waiting_ms": 600, "limit_ms": 1000}
    queue.submit(make_job(cost=400), digest="d", key="k")
    queue.submit(make_job(cost=401, pool="gpu"), digest="d")
    assert len(queue.list("clinic", Filter()).jobs) == 3
    queue.lease("w", "default", [PACKAGE])
    queue.submit(make_job(cost=600), digest="d")


def test_an_idle_pool_takes_one_job_of_any_cost(queue: JobQueue, make_job: Jobs) -> None:
    queue.submit(make_job(cost=10**10), digest="d")
    assert len(drain(queue)) == 1


def test_a_record_over_eight_kib_is_refused(queue: JobQueue, make_job: Jobs) -> None:
    with pytest.raises(TooLarge) as refused:
        queue.submit(make_job(request='{"label":"' + "x" * 8000 + '"}'), digest="d")
    assert refused.value.facts["limit"] == 8192


def test_a_queued_job_is_cancelled_at_once(
    queue: JobQueue, make_job: Jobs, clock: HandClock
) -> None:
    job = queue.submit(make_job(), digest="d").job
    clock.pass_seconds(1)
    cancelled = queue.cancel("clinic", job.id)
    assert (cancelled.state, cancelled.ended) == (State.CANCELLED, clock.now)
    assert queue.lease("w", "default", [PACKAGE]) is None
    assert queue.depth()[0].waiting_cost == 0


def test_a_running_job_is_marked_and_its_worker_ends_it(queue: JobQueue, make_job: Jobs) -> None:
    job = queue.submit(make_job(), digest="d").job
    other = queue.submit(make_job(), digest="d").job
    lease, untouched = (queue.lease("w", "default", [PACKAGE]) for _ in range(2))
    assert lease is not None
    assert untouched is not None
    assert untouched.job.id == other.id
    marked = queue.cancel("clinic", job.id)
    assert (marked.state, marked.cancelling) == (State.RUNNING, True)
    assert queue.cancelling([lease.token, untouched.token]) == {lease.token}
    assert queue.settle(lease, Outcome(State.CANCELLED))
    ended = queue.cancel("clinic", job.id)
    assert (ended.state, ended.cancelling) == (State.CANCELLED, False)
    assert queue.cancelling([lease.token]) == frozenset()
    assert queue.cancelling([]) == frozenset()


@pytest.mark.parametrize("way", ["sweep", "reclaim", "release"])
def test_a_job_to_be_cancelled_does_not_come_back(
    queue: JobQueue, make_job: Jobs, clock: HandClock, way: str
) -> None:
    job = queue.submit(make_job(), digest="d").job
    lease = queue.lease("w", "default", [PACKAGE])
    assert lease is not None
    queue.cancel("clinic", job.id)
    clock.pass_seconds(9)
    match way:
        case "sweep":
            queue.sweep()
        case "reclaim":
            queue.reclaim("w")
        case _:
            queue.release(lease)
    assert queue.get("clinic", job.id).state is State.CANCELLED
    assert queue.lease("w", "default", [PACKAGE]) is None


def test_an_ended_job_is_not_cancelled(queue: JobQueue, make_job: Jobs) -> None:
    job = queue.submit(make_job(), digest="d").job
    drain(queue)
    assert queue.cancel("clinic", job.id).state is State.SUCCEEDED


def test_another_tenants_job_is_not_found(queue: JobQueue, make_job: Jobs) -> None:
    job = queue.submit(make_job(), digest="d").job
    for ask in (queue.get, queue.cancel, queue.position, queue.forget, queue.events):
        for tenant, job_id in (("rival", job.id), ("clinic", "ex_none")):
            with pytest.raises(NotFound):
                ask(tenant, job_id)
    assert queue.get("clinic", job.id) == job
    assert queue.list("rival", Filter()).jobs == ()


def test_only_an_ended_job_is_forgotten(queue: JobQueue, make_job: Jobs) -> None:
    job = queue.submit(make_job(), digest="d").job
    with pytest.raises(Conflict):
        queue.forget("clinic", job.id)
    queue.cancel("clinic", job.id)
    queue.forget("clinic", job.id)
    with pytest.raises(NotFound):
        queue.get("clinic", job.id)
    assert queue.list("clinic", Filter()).jobs == ()


def test_priorities_take_weighted_turns(queue: JobQueue, make_job: Jobs) -> None:
    for priority in Priority:
        for _ in range(30):
            queue.submit(make_job(priority=priority), digest="d")
    turns = Counter(job.priority for job in drain(queue, 45))
    assert turns == {Priority.STAT: 24, Priority.HIGH: 12, Priority.NORMAL: 6, Priority.LOW: 3}


def test_low_is_never_starved_by_arriving_stat_jobs(queue: JobQueue, make_job: Jobs) -> None:
    low = queue.submit(make_job(priority=Priority.LOW), digest="d").job
    served: list[str] = []
    for _ in range(15):
        queue.submit(make_job(priority=Priority.STAT), digest="d")
        served += [job.id for job in drain(queue, 1)]
    assert served.index(low.id) > 0


def test_a_stat_job_overtakes_a_long_queue(queue: JobQueue, make_job: Jobs) -> None:
    for _ in range(50):
        queue.submit(make_job(), digest="d")
    drain(queue, 10)
    stat = queue.submit(make_job(priority=Priority.STAT), digest="d").job
    assert drain(queue, 1)[0].id == stat.id


def test_every_stat_job_that_comes_alone_is_next(queue: JobQueue, make_job: Jobs) -> None:
    for _ in range(50):
        queue.submit(make_job(), digest="d")
    for _ in range(10):
        stat = queue.submit(make_job(priority=Priority.STAT), digest="d").job
        assert drain(queue, 1)[0].id == stat.id
        drain(queue, 1)


def test_tenants_take_turns_by_device_time(queue: JobQueue, make_job: Jobs) -> None:
    for _ in range(40):
        queue.submit(make_job("many-small", cost=100), digest="d")
        queue.submit(make_job("few-large", cost=400), digest="d")
    given: Counter[str] = Counter()
    for job in drain(queue, 40):
        given[job.tenant] += job.cost
    assert abs(given["many-small"] - given["few-large"]) <= 400


def test_a_crowd_of_jobs_does_not_delay_a_newcomer(queue: JobQueue, make_job: Jobs) -> None:
    for _ in range(100):
        queue.submit(make_job("crowd"), digest="d")
    drain(queue, 20)
    late = queue.submit(make_job("newcomer"), digest="d").job
    assert late.id in {job.id for job in drain(queue, 2)}


def test_rest_earns_a_tenant_no_credit(queue: JobQueue, make_job: Jobs) -> None:
    for _ in range(60):
        queue.submit(make_job("busy"), digest="d")
    queue.submit(make_job("rested"), digest="d")
    drain(queue, 40)
    for _ in range(20):
        queue.submit(make_job("rested"), digest="d")
    turns = Counter(job.tenant for job in drain(queue, 10))
    assert turns == {"busy": 5, "rested": 5}


def test_a_tenants_turn_holds_across_packages(queue: JobQueue, make_job: Jobs) -> None:
    for _ in range(10):
        queue.submit(make_job("two", package=PACKAGE), digest="d")
        queue.submit(make_job("two", package=OTHER_PACKAGE), digest="d")
        queue.submit(make_job("one", package=PACKAGE), digest="d")
    both = [PACKAGE, OTHER_PACKAGE]
    leases = [queue.lease("w", "default", both) for _ in range(20)]
    assert Counter(each.job.tenant for each in leases if each) == {"two": 10, "one": 10}


def test_a_tenant_that_keeps_sending_gains_no_turns(queue: JobQueue, make_job: Jobs) -> None:
    for _ in range(30):
        queue.submit(make_job("early"), digest="d")
        queue.submit(make_job("steady"), digest="d")
    turns: Counter[str] = Counter()
    for _ in range(20):
        queue.submit(make_job("steady"), digest="d")
        turns.update(job.tenant for job in drain(queue, 1))
    assert turns == {"early": 10, "steady": 10}


def test_waiting_for_a_model_that_nobody_serves_earns_no_credit(
    queue: JobQueue, make_job: Jobs
) -> None:
    for _ in range(60):
        queue.submit(make_job("unserved", package=OTHER_PACKAGE), digest="d")
        queue.submit(make_job("served"), digest="d")
    drain(queue, 40)
    leases = [queue.lease("w", "default", [PACKAGE, OTHER_PACKAGE]) for _ in range(10)]
    turns = Counter(each.job.tenant for each in leases if each)
    assert turns == {"served": 5, "unserved": 5}
