"""A job: the record of one request on its way, and the moves it may make."""

from enum import StrEnum

from service.domain.value import Value
from service.errors.base import Failure

RECORD_SCHEMA = 2
"""Number of the record's form; version N reads N - 1. Version 1 knew no `kind`."""

INSTALLATION = "_installation"
"""In place of a tenant: the job is nobody's, as a probe's; no tenant can bear this name."""


class JobKind(StrEnum):
    """What a job is for."""

    EXPLANATION = "explanation"
    PROBE = "probe"
    """Finds out what a registered model package can serve."""


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether no move leads on from here."""
        return not MOVES[self]


MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.FAILED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.QUEUED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
"""The legal moves. Queued to failed is the dead letter of a lost worker."""


class Priority(StrEnum):
    """How urgent; weights of the turns are the queue's."""

    STAT = "stat"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Stage(StrEnum):
    """What is being done to a running job."""

    FETCH = "fetch"
    DECODE = "decode"
    PREPARE = "prepare"
    ATTRIBUTE = "attribute"
    JUDGE = "judge"
    RENDER = "render"
    DELIVER = "deliver"
    PROBE = "probe"


class Job(Value):
    """The record that the queue keeps; small, and free of patient data.

    Times are integer milliseconds since the epoch, progress is in thousandths.
    """

    schema_number: int = RECORD_SCHEMA
    kind: JobKind = JobKind.EXPLANATION
    id: str
    tenant: str
    pool: str = "default"
    priority: Priority = Priority.NORMAL
    state: State = State.QUEUED
    stage: Stage | None = None
    progress: int = 0
    attempt: int = 0
    created: int
    started: int | None = None
    ended: int | None = None
    cost: int
    """Estimated device time in milliseconds."""

    request: str = ""
    """The request as canonical JSON: opaque identifiers and parameters only. Empty of a probe."""

    model: str
    """``name@version`` as resolved at admission."""

    package: str
    """SHA-256 of the model package as resolved at admission."""

    label: str | None = None
    worker: str | None = None
    cancelling: bool = False
    partial: bool = False
    result: str | None = None
    """Store prefix under which the published results lie."""

    failure: Failure | None = None
