"""The queue on Redis: sorted sets, and one Lua script for every change."""

import hashlib
import json
import secrets
import time
from collections.abc import Collection, Sequence
from datetime import timedelta

from typing_extensions import override

from service.domain.job import Job, Priority, Stage, State
from service.errors.jobs import QueueFull, WorkerLost
from service.errors.requests import Conflict, InvalidRequest, KeyReused, NotFound
from service.queue.base import (
    DeadLetter,
    Depth,
    Event,
    Filter,
    JobQueue,
    Lease,
    Outcome,
    Page,
    Submitted,
)
from service.queue.records import Fields, failure_text, flat, from_fields, paired, to_fields
from service.redis_server import RedisServer, Script
from service.settings import QueueSettings

WEIGHTS = {Priority.STAT: 8, Priority.HIGH: 4, Priority.NORMAL: 2, Priority.LOW: 1}
"""Turns that each priority gets of fifteen when all of them wait."""

KEY_HOLDS = timedelta(hours=24)
"""How long an idempotency key belongs to its job."""

PASSED = timedelta(seconds=5)
"""How long after it was queued a job may be passed by one whose model is in memory."""

SWEEP_AT_ONCE = 100
SCAN_AT_ONCE = 200
SCAN_MOST = 2000
"""Records that one listing looks at before it answers with what it has found."""

LONGEST_NUMBER = 15
"""Digits of the largest number that Lua's doubles hold exactly."""

PROBES = "probe"
"""The line in which probes wait; explanations wait in that of their package's digest."""

WAIT_SLICE = 1.0
"""Seconds after which a waiting worker looks again, woken or not."""


def _script(name: str) -> Script:
    return Script("service.queue", name)


SUBMIT = _script("submit")
EARLIER = _script("earlier")
LEASE = _script("lease")
RENEW = _script("renew")
CANCELLING = _script("cancelling")
REPORT = _script("report")
SETTLE = _script("settle")
RELEASE = _script("release")
RECLAIM = _script("reclaim")
SWEEP = _script("sweep")
CANCEL = _script("cancel")
POSITION = _script("position")
FORGET = _script("forget")
DEPTH = _script("depth")


class RedisQueue(JobQueue):
    """The queue on one Redis server; see the port for its promises.

    Parameters
    ----------
    server
        The Redis server, with the clock by which deadlines are told.
    settings
        Times and limits.

    Notes
    -----
    Thread-safe. The keys are listed in ``scripts/common.lua``.
    """

    def __init__(self, server: RedisServer, settings: QueueSettings) -> None:
        self._server = server
        self._lease = _milliseconds(settings.lease)
        self._keep = _milliseconds(settings.keep)
        self._capacity = _milliseconds(settings.capacity)
        self._attempts = settings.attempts
        lost = WorkerLost(
            "The job was given up because its workers died; ask the operator to look at it.",
            attempts=settings.attempts,
        )
        self._lost = failure_text(lost.failure())

    @override
    def ping(self) -> None:
        self._server.check()

    @override
    def submit(self, job: Job, *, digest: str, key: str | None = None) -> Submitted:
        what, answer = self._server.run(
            SUBMIT,
            job.id,
            job.tenant,
            "" if key is None else _digest(key),
            digest,
            _milliseconds(KEY_HOLDS),
            self._capacity,
            *flat(to_fields(job)),
        )
        if what == "reused":
            raise _reused()
        if what == "full":
            raise QueueFull(
                "More work waits than is allowed; try again later.",
                waiting_ms=answer,
                limit_ms=self._capacity,
            )
        return Submitted(from_fields(paired(answer)), replayed=what == "replayed")

    @override
    def earlier(self, tenant: str, *, digest: str, key: str) -> Submitted | None:
        answer = self._server.run(EARLIER, tenant, _digest(key), digest)
        if not answer:
            return None
        what, record = answer
        if what == "reused":
            raise _reused()
        return Submitted(from_fields(paired(record)), replayed=True)

    @override
    def lease(
        self,
        worker: str,
        pool: str,
        packages: Sequence[str],
        *,
        at_hand: Collection[str] = (),
        probes: bool = False,
        wait: float = 0.0,
    ) -> Lease | None:
        until = time.monotonic() + wait
        lines = sorted(packages, key=lambda each: each not in at_hand)
        lines += [PROBES] if probes else []
        while True:
            lease = self._take(worker, pool, lines, len(set(packages) & set(at_hand)))
            left = until - time.monotonic()
            if lease is not None or left <= 0:
                return lease
            if lines:
                wakes = [f"wake:{pool}:{line}" for line in lines]
                self._server.wait(wakes, min(left, WAIT_SLICE))
            else:
                time.sleep(left)

    def _take(self, worker: str, pool: str, lines: Sequence[str], at_hand: int) -> Lease | None:
        token = secrets.token_hex(16)
        times = (self._lease, _milliseconds(PASSED))
        weights = [WEIGHTS[each] for each in Priority]
        answer = self._server.run(LEASE, worker, pool, token, *times, at_hand, *weights, *lines)
        return Lease(from_fields(paired(answer)), token) if answer else None

    @override
    def renew(self, worker: str, tokens: Sequence[str]) -> frozenset[str]:
        if not tokens:
            return frozenset()
        return frozenset(self._server.run(RENEW, worker, self._lease, *tokens))

    @override
    def cancelling(self, tokens: Sequence[str]) -> frozenset[str]:
        if not tokens:
            return frozenset()
        return frozenset(self._server.run(CANCELLING, *tokens))

    @override
    def report(self, lease: Lease, stage: Stage, progress: int) -> bool:
        return bool(self._server.run(REPORT, lease.job.id, lease.token, stage, progress))

    @override
    def settle(self, lease: Lease, outcome: Outcome) -> bool:
        if not outcome.state.ended:
            raise ValueError("a job is settled into a state that ends it")
        fields = _outcome_fields(outcome)
        return bool(
            self._server.run(
                SETTLE, lease.job.id, lease.token, outcome.state, self._keep, *flat(fields)
            )
        )

    @override
    def release(self, lease: Lease) -> bool:
        return bool(self._server.run(RELEASE, lease.job.id, lease.token, self._keep))

    @override
    def reclaim(self, worker: str) -> int:
        count: int = self._server.run(RECLAIM, worker, self._attempts, self._lost, self._keep)
        return count

    @override
    def sweep(self) -> int:
        total: int = 0
        while True:
            lost, old = self._server.run(
                SWEEP, self._attempts, self._lost, self._keep, SWEEP_AT_ONCE
            )
            total += lost
            if max(lost, old) < SWEEP_AT_ONCE:
                return total

    @override
    def cancel(self, tenant: str, job_id: str) -> Job:
        return _found(self._server.run(CANCEL, tenant, job_id, self._keep))

    @override
    def get(self, tenant: str, job_id: str) -> Job:
        with self._server.client() as client:
            fields: Fields = client.hgetall(self._server.key("job", job_id))
        if fields.get("tenant") != tenant:
            raise _no_job()
        return from_fields(fields)

    @override
    def position(self, tenant: str, job_id: str) -> int | None:
        answer = self._server.run(POSITION, tenant, job_id)
        if not answer:
            raise _no_job()
        waits, *before = answer
        return int(before[0]) if waits else None

    @override
    def list(
        self, tenant: str, which: Filter, *, limit: int = 50, cursor: str | None = None
    ) -> Page:
        found: dict[int, Job] = {}
        before = "+inf" if cursor is None else f"({_number(cursor)}"
        for _ in range(SCAN_MOST // SCAN_AT_ONCE):
            rows = self._rows(tenant, before)
            fitting = {n: job for n, job in rows if job is not None and _fits(job, which)}
            found.update(fitting)
            if len(found) > limit:
                numbers = list(found)[:limit]
                return Page(tuple(found[n] for n in numbers), str(numbers[-1]))
            if len(rows) < SCAN_AT_ONCE:
                return Page(tuple(found.values()), None)
            before = f"({rows[-1][0]}"
        return Page(tuple(found.values()), before[1:])

    def _rows(self, tenant: str, before: str) -> Sequence[tuple[int, Job | None]]:
        """Return a tenant's next records with their numbers, newest first."""
        with self._server.client() as client:
            numbered = client.zrevrangebyscore(
                self._server.key("jobs", tenant),
                before,
                "-inf",
                start=0,
                num=SCAN_AT_ONCE,
                withscores=True,
            )
            pipeline = client.pipeline(transaction=False)
            for job_id, _ in numbered:
                pipeline.hgetall(self._server.key("job", job_id))
            records = pipeline.execute()
        return [
            (int(number), from_fields(fields) if fields else None)
            for (_, number), fields in zip(numbered, records, strict=True)
        ]

    @override
    def forget(self, tenant: str, job_id: str) -> None:
        answer = self._server.run(FORGET, tenant, job_id)
        if answer == "none":
            raise _no_job()
        if answer == "busy":
            raise Conflict("The job has not ended; cancel it first.")

    @override
    def events(self, tenant: str, job_id: str, *, after: str | None = None) -> tuple[Event, ...]:
        start = "-" if after is None else f"({_number(after)}-0"
        with self._server.client() as client:
            if client.hget(self._server.key("job", job_id), "tenant") != tenant:
                raise _no_job()
            entries = client.xrange(self._server.key("events", job_id), min=start)
        return tuple(_event(number, fields) for number, fields in entries)

    @override
    def depth(self) -> tuple[Depth, ...]:
        return tuple(_depth(row) for row in self._server.run(DEPTH))

    @override
    def dead_letters(self) -> tuple[DeadLetter, ...]:
        with self._server.client() as client:
            ids = client.zrevrange(self._server.key("dead"), 0, -1)
            pipeline = client.pipeline(transaction=False)
            for job_id in ids:
                pipeline.hgetall(self._server.key("job", job_id))
            jobs = [from_fields(fields) for fields in pipeline.execute() if fields]
        return tuple(DeadLetter(job, reason=job.failure) for job in jobs if job.failure is not None)


def _digest(key: str) -> str:
    """Return what Redis sees of an idempotency key, which may name a patient."""
    return hashlib.sha256(key.encode()).hexdigest()


def _reused() -> KeyReused:
    return KeyReused("Choose a new Idempotency-Key; this one came with another body.")


def _milliseconds(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


def _no_job() -> NotFound:
    return NotFound("There is no such explanation.")


def _found(answer: Sequence[str]) -> Job:
    if not answer:
        raise _no_job()
    return from_fields(paired(answer))


def _number(mark: str) -> int:
    """Return a cursor or an event's id as the number that it is."""
    if not (mark.isascii() and mark.isdigit() and len(mark) <= LONGEST_NUMBER):
        raise InvalidRequest("A cursor or event id must be one that the service gave.")
    return int(mark)


def _outcome_fields(outcome: Outcome) -> Fields:
    fields = {"partial": str(int(outcome.partial))}
    if outcome.result is not None:
        fields["result"] = outcome.result
    if outcome.failure is not None:
        fields["failure"] = failure_text(outcome.failure)
    if outcome.state is State.SUCCEEDED:
        fields["progress"] = "1000"
    return fields


def _event(number: str, fields: Fields) -> Event:
    return Event(
        id=number.partition("-")[0],
        state=State(fields["state"]),
        stage=Stage(fields["stage"]) if fields["stage"] else None,
        progress=int(fields["progress"]),
        at=int(fields["at"]),
    )


def _depth(row: Sequence[str | int]) -> Depth:
    pool, *counts, running, cost, age = row
    return Depth(
        pool=str(pool),
        waiting={priority: int(n) for priority, n in zip(Priority, counts, strict=True)},
        running=int(running),
        waiting_cost=int(cost),
        oldest_age=int(age),
    )


def _fits(job: Job, which: Filter) -> bool:
    """Tell whether a job is among those that a listing shows."""
    name = job.model.partition("@")[0]
    return (
        which.state in (None, job.state)
        and which.model in (None, job.model, name)
        and which.label in (None, job.label)
        and (which.created_from is None or job.created >= which.created_from)
        and (which.created_to is None or job.created <= which.created_to)
        and (which.study is None or json.loads(job.request).get("study") == which.study)
    )
