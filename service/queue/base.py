"""The queue's port: what it promises, and the values it speaks."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from service.domain.job import Job, Priority, Stage, State
from service.domain.value import Value
from service.errors.base import Failure


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to a submit."""

    job: Job
    replayed: bool
    """Whether an earlier submit with the same key made this job."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A job handed to one worker; the token fences every write it makes."""

    job: Job
    token: str
    """Random per lease; also the last part of the result path."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a leased job ended."""

    state: State
    result: str | None = None
    partial: bool = False
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a job's history, in the order of `id`."""

    id: str
    state: State
    stage: Stage | None
    progress: int
    at: int
    """Milliseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs a listing shows; `None` shows all."""

    state: State | None = None
    model: str | None = None
    """``name`` or ``name@version``."""

    study: str | None = None
    label: str | None = None
    created_from: int | None = None
    created_to: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, newest first."""

    jobs: tuple[Job, ...]
    cursor: str | None
    """Hand it in to get the next page; `None` at the end."""


class Depth(Value):
    """What waits in one pool."""

    pool: str
    waiting: dict[Priority, int]
    running: int
    waiting_cost: int
    """Device milliseconds waiting."""

    oldest_age: int
    """Milliseconds that the oldest waiting job has waited; 0 when none."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was given up, and why."""

    job: Job
    reason: Failure = field(kw_only=True)


class JobQueue(Protocol):
    """Jobs in order, each handed to one worker at a time, with their record.

    Promises, tested in ``tests/contracts`` for every implementation:

    - queue and record change together: no orphan state exists;
    - a leased job is invisible until its lease ends; an expired lease returns
      the job with `attempt` one higher, at the head of its queue;
    - attempts are counted when the job is leased, before any compute; a job
      whose workers were lost `attempts` times is failed ``worker_lost`` and
      listed as a dead letter;
    - every write of a worker carries the lease token; a stale token changes
      nothing and is told so; settling twice changes nothing;
    - the same (tenant, idempotency key, digest) gives the same job; the same
      key with another digest raises `KeyReused`;
    - of the waiting jobs, priorities take weighted turns, and within one
      priority tenants take turns by the device time they were given; of one
      tenant's in one priority the oldest comes first, but within five seconds
      of its being queued a later one may pass it whose model is `at_hand`;
    - a queued job is cancelled at once, a running one is marked `cancelling`;
    - every operation raises `QueueUnavailable` when the server does not answer.

    Times are handed in by the clock given to the implementation, in integer
    milliseconds since the epoch.
    """

    def ping(self) -> None:
        """Raise `QueueUnavailable` unless the server answers and may be trusted."""
        ...

    def submit(self, job: Job, *, digest: str, key: str | None = None) -> Submitted:
        """Queue a job; `digest` is the SHA-256 of the request's canonical body.

        Raises
        ------
        KeyReused
            The idempotency key belongs to another body.
        QueueFull
            More device time waits in the pool than is allowed.
        TooLarge
            The record would be over 8 KiB.
        """
        ...

    def earlier(self, tenant: str, *, digest: str, key: str) -> Submitted | None:
        """Return what `submit` would replay for this key; `None` when it would queue a job.

        Raises
        ------
        KeyReused
            The idempotency key belongs to another body.
        """
        ...

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
        """Hand out the next explanation whose model package is among `packages`.

        Those `at_hand` are in the worker's memory. With `probes` it may also be a probe, of
        whatever package. Waits up to `wait` seconds for one to arrive; `None` when none did.
        """
        ...

    def renew(self, worker: str, tokens: Sequence[str]) -> frozenset[str]:
        """Prolong leases; return those tokens that still hold."""
        ...

    def cancelling(self, tokens: Sequence[str]) -> frozenset[str]:
        """Return those tokens whose jobs are to be cancelled."""
        ...

    def report(self, lease: Lease, stage: Stage, progress: int) -> bool:
        """Record stage and progress (thousandths); false when the lease is lost."""
        ...

    def settle(self, lease: Lease, outcome: Outcome) -> bool:
        """Publish the end of a job; false when the lease is lost (nothing changed).

        Settled once more under the same token, after an answer that never
        came, it is true again and the first outcome stands.
        """
        ...

    def release(self, lease: Lease) -> bool:
        """Give a job back unfinished, without counting the attempt (drain)."""
        ...

    def reclaim(self, worker: str) -> int:
        """Return the jobs that a former life of `worker` held; how many there were."""
        ...

    def sweep(self) -> int:
        """Return jobs with expired leases to the queue; how many there were."""
        ...

    def cancel(self, tenant: str, job_id: str) -> Job:
        """Cancel; return the job as it now is. `NotFound` if there is none."""
        ...

    def get(self, tenant: str, job_id: str) -> Job:
        """Return the record. `NotFound` if there is none or it is another tenant's."""
        ...

    def position(self, tenant: str, job_id: str) -> int | None:
        """Return how many waiting jobs of its priority and tenant stand before it."""
        ...

    def list(
        self, tenant: str, which: Filter, *, limit: int = 50, cursor: str | None = None
    ) -> Page:
        """List a tenant's jobs, newest first; `InvalidRequest` for a cursor not ours.

        A page may hold fewer than `limit` and still have a cursor.
        """
        ...

    def forget(self, tenant: str, job_id: str) -> None:
        """Delete an ended job's record. `Conflict` if it has not ended."""
        ...

    def events(self, tenant: str, job_id: str, *, after: str | None = None) -> tuple[Event, ...]:
        """Return a job's events after the one with id `after` (all if `None`).

        `InvalidRequest` for an id that is not one of ours; old events of a
        long history are dropped.
        """
        ...

    def depth(self) -> tuple[Depth, ...]:
        """Tell what waits, by pool."""
        ...

    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """List the jobs that were given up."""
        ...
