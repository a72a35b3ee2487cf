"""What the queue tells: lists, positions, histories, depths."""

import pytest

from service.domain.job import Job, Priority, Stage, State
from service.errors.requests import InvalidRequest, NotFound
from service.queue import redis as redis_queue
from service.queue.base import Event, Filter, JobQueue, Lease, Outcome
from service.redis_server import RedisServer
from tests.support.jobs import OTHER_PACKAGE, PACKAGE, HandClock, Jobs

pytestmark = pytest.mark.redis


def submit(queue: JobQueue, job: Job) -> Job:
    return queue.submit(job, digest="d").job


def take(queue: JobQueue) -> Lease:
    lease = queue.lease("w", "default", [PACKAGE, OTHER_PACKAGE])
    assert lease is not None
    return lease


def names(events: tuple[Event, ...]) -> list[tuple[State, Stage | None, int]]:
    return [(each.state, each.stage, each.progress) for each in events]


def test_position_counts_the_jobs_before_it(queue: JobQueue, make_job: Jobs) -> None:
    jobs = [submit(queue, make_job(package=each)) for each in (PACKAGE, OTHER_PACKAGE) * 2]
    submit(queue, make_job("other-tenant"))
    submit(queue, make_job(priority=Priority.STAT))
    assert [queue.position("clinic", job.id) for job in jobs] == [0, 1, 2, 3]
    queue.cancel("clinic", jobs[1].id)
    assert [queue.position("clinic", job.id) for job in jobs] == [0, None, 1, 2]


def test_a_running_job_has_no_position(queue: JobQueue, make_job: Jobs) -> None:
    job = submit(queue, make_job())
    take(queue)
    assert queue.position("clinic", job.id) is None


def test_a_jobs_history_tells_every_step_in_order(
    queue: JobQueue, make_job: Jobs, clock: HandClock
) -> None:
    job = submit(queue, make_job())
    lease = take(queue)
    queue.report(lease, Stage.DECODE, 0)
    clock.pass_seconds(1)
    queue.report(lease, Stage.ATTRIBUTE, 500)
    queue.settle(lease, Outcome(State.SUCCEEDED))
    events = queue.events("clinic", job.id)
    assert names(events) == [
        (State.QUEUED, None, 0),
        (State.RUNNING, None, 0),
        (State.RUNNING, Stage.DECODE, 0),
        (State.RUNNING, Stage.ATTRIBUTE, 500),
        (State.SUCCEEDED, None, 1000),
    ]
    assert [each.at - job.created for each in events] == [0, 0, 0, 1000, 1000]


def test_a_history_goes_on_after_the_last_event_seen(queue: JobQueue, make_job: Jobs) -> None:
    job = submit(queue, make_job())
    whole: tuple[Event, ...] = queue.events("clinic", job.id)
    lease = take(queue)
    for progress in range(12):
        queue.report(lease, Stage.ATTRIBUTE, progress)
        whole += queue.events("clinic", job.id, after=whole[-1].id)
    assert whole == queue.events("clinic", job.id)
    assert queue.events("clinic", job.id, after=whole[-1].id) == ()


@pytest.mark.parametrize("mark", ["", "-1", "1-0", "x", "9" * 16, "²", "+inf"])
def test_a_mark_that_is_not_ours_is_refused(queue: JobQueue, make_job: Jobs, mark: str) -> None:
    job = submit(queue, make_job())
    with pytest.raises(InvalidRequest):
        queue.events("clinic", job.id, after=mark)
    with pytest.raises(InvalidRequest):
        queue.list("clinic", Filter(), cursor=mark)


def test_a_history_is_capped_and_keeps_the_newest(queue: JobQueue, make_job: Jobs) -> None:
    job = submit(queue, make_job())
    lease = take(queue)
    for progress in range(600):
        queue.report(lease, Stage.ATTRIBUTE, progress)
    events = queue.events("clinic", job.id)
    assert 200 <= len(events) <= 300
    assert events[-1].progress == 599


def test_a_retry_is_told_in_the_history(queue: JobQueue, make_job: Jobs, clock: HandClock) -> None:
    job = submit(queue, make_job())
    queue.report(take(queue), Stage.RENDER, 900)
    clock.pass_seconds(9)
    queue.sweep()
    assert names(queue.events("clinic", job.id))[-1] == (State.QUEUED, None, 0)


def test_a_listing_is_newest_first_and_in_pages(queue: JobQueue, make_job: Jobs) -> None:
    sent = [submit(queue, make_job()).id for _ in range(7)]
    seen: list[str] = []
    cursor = None
    for expected in (3, 3, 1):
        page = queue.list("clinic", Filter(), limit=3, cursor=cursor)
        assert len(page.jobs) == expected
        seen += [job.id for job in page.jobs]
        cursor = page.cursor
    assert seen == sent[::-1]
    assert cursor is None


def test_the_last_full_page_is_told_to_be_the_last(queue: JobQueue, make_job: Jobs) -> None:
    for _ in range(4):
        submit(queue, make_job())
    first = queue.list("clinic", Filter(), limit=2)
    assert first.cursor is not None
    assert queue.list("clinic", Filter(), limit=2, cursor=first.cursor).cursor is None


def test_pages_are_not_shifted_by_new_jobs(queue: JobQueue, make_job: Jobs) -> None:
    sent = [submit(queue, make_job()).id for _ in range(4)]
    first = queue.list("clinic", Filter(), limit=2)
    submit(queue, make_job())
    second = queue.list("clinic", Filter(), limit=2, cursor=first.cursor)
    assert [job.id for job in first.jobs + second.jobs] == sent[::-1]


def test_a_listing_shows_what_the_filter_asks_for(
    queue: JobQueue, make_job: Jobs, clock: HandClock
) -> None:
    start = clock.now
    plain = submit(queue, make_job())
    clock.pass_seconds(1)
    labelled = submit(queue, make_job(label="case:2"))
    clock.pass_seconds(1)
    other_study = submit(queue, make_job(request='{"study":"st_2"}'))
    clock.pass_seconds(1)
    other_model = submit(queue, make_job(model="chest@2.0.0"))
    queue.cancel("clinic", plain.id)

    def shown(**asked: object) -> list[str]:
        return [job.id for job in queue.list("clinic", Filter(**asked)).jobs]  # type: ignore[arg-type]  # each test case names its own field

    assert shown(state=State.CANCELLED) == [plain.id]
    assert shown(label="case:2") == [labelled.id]
    assert shown(study="st_2") == [other_study.id]
    assert shown(model="chest@2.0.0") == [other_model.id]
    assert len(shown(model="chest")) == 4
    assert shown(model="ches") == []
    assert shown(created_from=start + 1000, created_to=start + 2000) == [
        other_study.id,
        labelled.id,
    ]


def test_a_filter_that_fits_little_still_reaches_the_end(
    queue: JobQueue, make_job: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_queue, "SCAN_AT_ONCE", 4)
    monkeypatch.setattr(redis_queue, "SCAN_MOST", 8)
    first = submit(queue, make_job(label="needle"))
    for _ in range(21):
        submit(queue, make_job())
    pages = [queue.list("clinic", Filter(label="needle"))]
    while pages[-1].cursor is not None:
        pages.append(queue.list("clinic", Filter(label="needle"), cursor=pages[-1].cursor))
    assert [job.id for page in pages for job in page.jobs] == [first.id]
    assert len(pages) == 3


def test_depth_tells_what_waits_by_pool(queue: JobQueue, make_job: Jobs, clock: HandClock) -> None:
    assert queue.depth() == ()
    submit(queue, make_job(cost=300))
    clock.pass_seconds(4)
    submit(queue, make_job(cost=200, priority=Priority.STAT))
    submit(queue, make_job(cost=50, pool="gpu"))
    clock.pass_seconds(1)
    first, second = queue.depth()
    assert (first.pool, first.running, first.waiting_cost, first.oldest_age) == (
        "default",
        0,
        500,
        5000,
    )
    assert first.waiting == {
        Priority.STAT: 1,
        Priority.HIGH: 0,
        Priority.NORMAL: 1,
        Priority.LOW: 0,
    }
    assert (second.pool, second.waiting_cost, second.oldest_age) == ("gpu", 50, 1000)


def test_depth_follows_a_job_through_its_life(queue: JobQueue, make_job: Jobs) -> None:
    submit(queue, make_job(cost=300))
    lease = take(queue)
    (running,) = queue.depth()
    assert (sum(running.waiting.values()), running.running, running.waiting_cost) == (0, 1, 0)
    queue.release(lease)
    (waiting,) = queue.depth()
    assert (sum(waiting.waiting.values()), waiting.running, waiting.waiting_cost) == (1, 0, 300)
    queue.settle(take(queue), Outcome(State.SUCCEEDED))
    (idle,) = queue.depth()
    assert (sum(idle.waiting.values()), idle.running, idle.oldest_age) == (0, 0, 0)


def test_an_ended_record_goes_after_its_time(
    queue: JobQueue, make_job: Jobs, clock: HandClock, redis: RedisServer
) -> None:
    ended = submit(queue, make_job())
    queue.settle(take(queue), Outcome(State.SUCCEEDED))
    waiting = submit(queue, make_job())
    clock.pass_seconds(7 * 24 * 3600 - 1)
    queue.sweep()
    assert queue.get("clinic", ended.id).state is State.SUCCEEDED
    clock.pass_seconds(1)
    assert queue.sweep() == 0
    with pytest.raises(NotFound):
        queue.get("clinic", ended.id)
    assert [job.id for job in queue.list("clinic", Filter()).jobs] == [waiting.id]
    with redis.client() as client:
        assert not [key for key in client.keys("*") if ended.id in key]


def test_a_forgotten_dead_letter_is_listed_no_more(
    queue: JobQueue, make_job: Jobs, clock: HandClock
) -> None:
    job = submit(queue, make_job())
    for _ in range(3):
        take(queue)
        clock.pass_seconds(9)
        queue.sweep()
    assert [letter.job.id for letter in queue.dead_letters()] == [job.id]
    queue.forget("clinic", job.id)
    assert queue.dead_letters() == ()


def test_no_trace_of_ended_jobs_is_left_once_they_are_gone(
    queue: JobQueue, make_job: Jobs, clock: HandClock, redis: RedisServer
) -> None:
    for tenant in ("a", "b"):
        for package in (PACKAGE, OTHER_PACKAGE):
            submit(queue, make_job(tenant, package=package))
    while (lease := queue.lease("w", "default", [PACKAGE, OTHER_PACKAGE])) is not None:
        queue.settle(lease, Outcome(State.SUCCEEDED))
    clock.pass_seconds(8 * 24 * 3600)
    queue.sweep()
    with redis.client() as client:
        kinds = {key.split(":")[1] for key in client.keys("*")}
    assert kinds <= {"number", "spent", "clock", "credit", "pool", "pools"}
