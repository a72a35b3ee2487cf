"""A job as the fields of a Redis hash, and back."""

from collections.abc import Iterable, Mapping
from itertools import pairwise

from pydantic import JsonValue

from service.domain.job import Job
from service.errors.base import Failure
from service.errors.requests import TooLarge

RECORD_BYTES = 8192
"""Largest record; anything bigger belongs in the store."""

FAILURE_BYTES = 2048
"""Largest failure in a record; a bigger one loses its facts."""

Fields = dict[str, str]


def to_fields(job: Job) -> Fields:
    """Return the record's fields; those that are `None` are left out.

    Raises
    ------
    TooLarge
        The record would be over 8 KiB: the request asks too much at once.
    """
    values = job.model_dump(mode="json", exclude_none=True, exclude={"failure"})
    fields = {name: text(value) for name, value in values.items()}
    if job.failure is not None:
        fields["failure"] = failure_text(job.failure)
    size = sum(len(name) + len(value.encode()) for name, value in fields.items())
    if size > RECORD_BYTES:
        raise TooLarge(
            "The request is too long to queue; ask for fewer methods, targets or parameters.",
            limit=RECORD_BYTES,
            observed=size,
        )
    return fields


def from_fields(fields: Mapping[str, str]) -> Job:
    """Return the job of a record; fields of other versions are passed over."""
    known: dict[str, object] = {
        name: value for name, value in fields.items() if name in Job.model_fields
    }
    if "failure" in known:
        known["failure"] = Failure.model_validate_json(fields["failure"])
    return Job.model_validate(known)


def paired(flat: Iterable[str]) -> Fields:
    """Return a mapping from Redis' flat list of fields and values."""
    items = list(flat)
    return dict(list(pairwise(items))[::2])


def flat(fields: Mapping[str, str]) -> list[str]:
    """Return a mapping as Redis' flat list of fields and values."""
    return [part for item in fields.items() for part in item]


def text(value: JsonValue) -> str:
    """Return a field's value as text; truth values as 0 and 1."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def failure_text(failure: Failure) -> str:
    """Return a failure as JSON, without its facts when they are many."""
    whole = failure.model_dump_json()
    if len(whole.encode()) <= FAILURE_BYTES:
        return whole
    return failure.model_copy(update={"facts": {}}).model_dump_json()
