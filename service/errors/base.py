"""What every failure has: whose move is next, a stable code, a safe text."""

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, JsonValue
from typing_extensions import override


class Kind(StrEnum):
    """Whose move is next after a failure."""

    CALLER = "caller"  # the request must change
    WAIT = "wait"  # the same request may succeed later
    DATA = "data"  # the study cannot be explained as it is
    OURS = "ours"  # a fault in the service


class Failure(BaseModel):
    """A failure as a record: what a job keeps and a problem document shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    code: str
    title: str
    detail: str
    facts: dict[str, JsonValue] = {}


class WhylightError(Exception):
    """Base of every failure that the service foresees.

    Parameters
    ----------
    detail
        What is wrong here and what to do, in our own words.
    pointer
        JSON Pointer to the offending field of the request, if there is one.
    facts
        Machine-readable particulars: limits, observed numbers, valid names.
    """

    kind: ClassVar[Kind] = Kind.OURS
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "The service failed"

    def __init__(self, detail: str, *, pointer: str | None = None, **facts: JsonValue) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.facts = facts

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.kind is Kind.WAIT

    def failure(self) -> Failure:
        """Return this failure as a record."""
        return Failure(
            kind=self.kind,
            code=self.code,
            title=self.title,
            detail=self.detail,
            facts=self.facts,
        )


class JobFailure(WhylightError):
    """A failure read back from a record."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.facts = failure.facts
        self.record = failure

    @override
    def failure(self) -> Failure:
        """Return the record as it was read."""
        return self.record
