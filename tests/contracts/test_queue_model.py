"""The queue against a plain model of its states, on random histories."""

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from service.domain.job import Job, JobKind, Priority, State
from service.queue.base import Lease, Outcome
from service.queue.redis import RedisQueue
from service.redis_server import RedisServer
from service.settings import QueueSettings
from tests.support.jobs import OTHER_PACKAGE, PACKAGE, HandClock, Jobs

pytestmark = pytest.mark.redis

LEASE = 9000
ATTEMPTS = 3
PASSED = 5000
PACKAGES = (PACKAGE, OTHER_PACKAGE)
WORKERS = ("w1", "w2")


@dataclass
class Known:
    """What the model knows of one job."""

    job: Job
    order: int
    state: State = State.QUEUED
    attempt: int = 0
    token: str | None = None
    deadline: int = 0
    queued: int = 0
    worker: str = ""
    cancelling: bool = False

    @property
    def probe(self) -> bool:
        return self.job.kind is JobKind.PROBE

    def lose(self, now: int) -> None:
        self.token, self.queued = None, now
        if self.cancelling:
            self.state = State.CANCELLED
        elif self.attempt >= ATTEMPTS:
            self.state = State.FAILED
        else:
            self.state = State.QUEUED
        self.cancelling = False


class QueueMachine(RuleBasedStateMachine):
    """Every step is made on the queue and on the model, and both must agree."""

    queue: RedisQueue
    clock: HandClock
    server: RedisServer
    leases: Bundle[Lease | None] = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Known] = {}
        self.make_job = Jobs(self.clock)

    @initialize()
    def empty(self) -> None:
        with self.server.client() as client:
            client.flushall()

    @rule(
        tenant=st.sampled_from(["a", "b", "c"]),
        priority=st.sampled_from(list(Priority)),
        package=st.sampled_from(PACKAGES),
        cost=st.integers(0, 1000),
        kind=st.sampled_from(JobKind),
    )
    def submit(
        self, tenant: str, priority: Priority, package: str, cost: int, kind: JobKind
    ) -> None:
        job = self.make_job(tenant, priority=priority, package=package, cost=cost, kind=kind)
        assert not self.queue.submit(job, digest="d").replayed
        self.known[job.id] = Known(job, len(self.known), queued=self.clock.now)

    @rule(
        target=leases,
        worker=st.sampled_from(WORKERS),
        served=st.sets(st.sampled_from(PACKAGES)),
        at_hand=st.sets(st.sampled_from(PACKAGES)),
        probes=st.booleans(),
    )
    def lease(
        self, worker: str, served: set[str], at_hand: set[str], *, probes: bool
    ) -> Lease | None:
        lease = self.queue.lease(worker, "default", sorted(served), at_hand=at_hand, probes=probes)
        waiting = [
            each
            for each in self.known.values()
            if each.state is State.QUEUED and (probes if each.probe else each.job.package in served)
        ]
        if lease is None:
            assert not waiting
            return None
        chosen = self.known[lease.job.id]
        assert chosen in waiting
        rivals = sorted(
            (
                each
                for each in waiting
                if (each.job.tenant, each.job.priority) == (chosen.job.tenant, chosen.job.priority)
            ),
            key=lambda each: each.order,
        )
        near = [each for each in rivals if each.job.package in at_hand and not each.probe]
        first = rivals[0]
        fresh = first.attempt == 0 and self.clock.now - first.queued < PASSED
        assert chosen is (near[0] if near and fresh else first)
        chosen.state, chosen.token, chosen.worker = State.RUNNING, lease.token, worker
        chosen.attempt += 1
        chosen.deadline = self.clock.now + LEASE
        assert lease.job.attempt == chosen.attempt
        return lease

    def holder(self, lease: Lease) -> Known | None:
        known = self.known[lease.job.id]
        return known if known.token == lease.token else None

    @rule(lease=leases, worker=st.sampled_from(WORKERS))
    def renew(self, lease: Lease | None, worker: str) -> None:
        if lease is None:
            return
        known = self.holder(lease)
        holds = known is not None and known.worker == worker
        assert self.queue.renew(worker, [lease.token]) == ({lease.token} if holds else set())
        if holds and known is not None:
            known.deadline = self.clock.now + LEASE

    @rule(lease=consumes(leases), state=st.sampled_from([s for s in State if s.ended]))
    def settle(self, lease: Lease | None, state: State) -> None:
        if lease is None:
            return
        known = self.holder(lease)
        assert self.queue.settle(lease, Outcome(state)) is (known is not None)
        if known is not None:
            known.state, known.token, known.cancelling = state, None, False

    @rule(lease=consumes(leases))
    def release(self, lease: Lease | None) -> None:
        if lease is None:
            return
        known = self.holder(lease)
        assert self.queue.release(lease) is (known is not None)
        if known is not None:
            known.token, known.queued = None, self.clock.now
            known.state = State.CANCELLED if known.cancelling else State.QUEUED
            known.attempt -= 0 if known.cancelling else 1
            known.cancelling = False

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if not self.known:
            return
        known = data.draw(st.sampled_from(list(self.known.values())))
        if known.state is State.QUEUED:
            known.state = State.CANCELLED
        elif known.state is State.RUNNING:
            known.cancelling = True
        assert self.queue.cancel(known.job.tenant, known.job.id).state is known.state

    @rule(seconds=st.sampled_from([1, 4, 9]))
    def pass_time(self, seconds: int) -> None:
        self.clock.pass_seconds(seconds)

    @rule()
    def sweep(self) -> None:
        held = [each for each in self.known.values() if each.token is not None]
        lost = [each for each in held if each.deadline <= self.clock.now]
        assert self.queue.sweep() == len(lost)
        for each in lost:
            each.lose(self.clock.now)

    @rule(worker=st.sampled_from(WORKERS))
    def reclaim(self, worker: str) -> None:
        lost = [each for each in self.known.values() if each.token and each.worker == worker]
        assert self.queue.reclaim(worker) == len(lost)
        for each in lost:
            each.lose(self.clock.now)

    @invariant()
    def records_agree(self) -> None:
        for each in self.known.values():
            job = self.queue.get(each.job.tenant, each.job.id)
            assert (job.state, job.attempt) == (each.state, each.attempt)
            assert job.cancelling is each.cancelling

    @invariant()
    def counts_agree(self) -> None:
        for depth in self.queue.depth():
            waiting = [each for each in self.known.values() if each.state is State.QUEUED]
            running = [each for each in self.known.values() if each.state is State.RUNNING]
            assert depth.running == len(running)
            assert depth.waiting_cost == sum(each.job.cost for each in waiting)
            for priority, count in depth.waiting.items():
                assert count == sum(each.job.priority is priority for each in waiting)

    @invariant()
    def positions_agree(self) -> None:
        waiting = [each for each in self.known.values() if each.state is State.QUEUED]
        for each in waiting:
            before = sum(
                other.order < each.order
                for other in waiting
                if (other.job.tenant, other.job.priority) == (each.job.tenant, each.job.priority)
            )
            assert self.queue.position(each.job.tenant, each.job.id) == before


def test_the_queue_agrees_with_a_plain_model(
    queue: RedisQueue, redis: RedisServer, clock: HandClock
) -> None:
    machine = type("Machine", (QueueMachine,), {"queue": queue, "clock": clock, "server": redis})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_model_and_the_queue_have_the_same_limits(settings: QueueSettings) -> None:
    assert settings.lease.total_seconds() * 1000 == LEASE
    assert settings.attempts == ATTEMPTS
