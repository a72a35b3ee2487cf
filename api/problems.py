"""Every failure as an RFC 9457 problem document, and their documentation.

A document holds fixed texts, names out of the catalog, numbers and JSON
Pointers; never an exception's text and never a value that the caller sent.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice, takewhile
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, JsonValue
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.errors.base import JobFailure, Kind, WhylightError
from service.errors.jobs import OutOfStorage, QueueUnavailable, StoreUnavailable
from service.errors.models import ModelUnavailable
from service.errors.requests import (
    Conflict,
    Forbidden,
    Gone,
    InvalidRequest,
    MalformedBody,
    NotAcceptable,
    NotFound,
    NotReady,
    StudyFull,
    TooLarge,
    Unauthenticated,
    UnknownMethod,
    UnknownModel,
    UnsupportedMediaType,
)
from service.errors.studies import (
    AbsurdDimensions,
    NotDicom,
    StudyContradicted,
    TruncatedDicom,
    UnsupportedTransferSyntax,
)
from service.wording import MESSAGES, innermost, place_of, says, sentence

MEDIA_TYPE = "application/problem+json"
URN = "urn:whylight:problem:"
VERBS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class MethodNotAllowed(WhylightError):
    """The resource exists and does not know the verb."""

    kind = Kind.CALLER
    code = "method_not_allowed"
    title = "The resource does not know this verb"


class RangeNotSatisfiable(WhylightError):
    """The asked range lies beyond the artifact's end."""

    kind = Kind.CALLER
    code = "range_not_satisfiable"
    title = "The range lies beyond the end"


class InternalError(WhylightError):
    """A fault of the service; the log holds its place under the request's id."""

    kind = Kind.OURS
    code = "internal"
    title = "The service failed"


STATUS: dict[type[WhylightError], int] = {
    MalformedBody: 400,
    NotDicom: 400,
    TruncatedDicom: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    UnknownModel: 404,
    UnknownMethod: 404,
    MethodNotAllowed: 405,
    NotAcceptable: 406,
    Conflict: 409,
    NotReady: 409,
    StudyFull: 409,
    StudyContradicted: 409,
    ModelUnavailable: 409,
    Gone: 410,
    TooLarge: 413,
    UnsupportedMediaType: 415,
    UnsupportedTransferSyntax: 415,
    RangeNotSatisfiable: 416,
    OutOfStorage: 507,
}
"""Statuses that the kind alone does not give."""

BY_KIND = {Kind.CALLER: 422, Kind.DATA: 422, Kind.WAIT: 503, Kind.OURS: 500}

PLACES_SHOWN = 50
"""Fields that one problem names at most."""

RETRY_AFTER = 5
"""Seconds after which what must wait may be tried again, when nothing better is known."""


class Place(BaseModel):
    """One offending field."""

    pointer: str = Field(description="JSON Pointer into the request (RFC 6901).")
    detail: str


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(description="Stable identifier of the kind of problem.")
    title: str
    status: int
    detail: str = Field(description="What is wrong here, and what to do.")
    instance: str = Field(description="The request's identifier, also sent as X-Request-ID.")
    code: str = Field(description="The type's last part.")
    retryable: bool = Field(description="Whether the same request may succeed later.")
    errors: list[Place] = []
    facts: dict[str, JsonValue] = Field(
        default={}, description="Particulars for programs: limits, observed numbers, valid names."
    )


def status_of(kind: type[WhylightError]) -> int:
    """Return the HTTP status of a class of failures."""
    for each in kind.__mro__:
        if each in STATUS:
            return STATUS[each]
    return BY_KIND[kind.kind]


def describe(error: WhylightError, request_id: str) -> Problem:
    """Return a failure as a problem document."""
    facts = dict(error.facts)
    facts.pop("retry_after", None)
    return Problem(
        type=f"{URN}{error.code}",
        title=error.title,
        status=_status(error),
        detail=error.detail,
        instance=request_id,
        code=error.code,
        retryable=error.retryable,
        errors=_places(error, facts),
        facts=facts,
    )


def respond(error: WhylightError, request_id: str) -> Response:
    """Return a failure as a response."""
    problem = describe(error, request_id)
    return JSONResponse(
        problem.model_dump(mode="json"),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=_headers(error, problem.status),
    )


def install(app: FastAPI) -> None:
    """Answer every failure of the application with a problem document."""
    app.add_exception_handler(WhylightError, _on_failure)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_router)


def invalid(found: Sequence[ErrorDetails], prefix: str = "") -> InvalidRequest:
    """Return what pydantic found wrong in a body as one failure; parameters as of `places`."""
    return InvalidRequest(
        "A field is missing, misspelt or out of range; 'errors' says which.",
        errors=places(found, prefix),
    )


def places(found: Sequence[ErrorDetails], prefix: str = "") -> list[JsonValue]:
    """Return each wrong field of a body once, with what is wrong, without its values.

    Parameters
    ----------
    found
        Pydantic's list of errors.
    prefix
        JSON Pointer of the document within the request.
    """
    by_pointer: dict[str, list[ErrorDetails]] = defaultdict(list)
    for each in innermost(found):
        by_pointer[prefix + _pointer(each)].append(each)
    return [
        {"pointer": pointer, "detail": _detail(them)}
        for pointer, them in islice(by_pointer.items(), PLACES_SHOWN)
    ]


# ------------------------------------------------------------------- in detail


def _status(error: WhylightError) -> int:
    """Return the status of one failure."""
    if isinstance(error, AbsurdDimensions) and "limit" in error.facts:
        return 413  # the numbers are possible, only too large for us
    return status_of(type(error))


def _places(error: WhylightError, facts: dict[str, JsonValue]) -> list[Place]:
    """Take the offending fields out of a failure's particulars."""
    listed = facts.pop("errors", None)
    if isinstance(listed, list):
        return [_place(each) for each in listed if isinstance(each, dict)]
    if error.pointer is not None:
        return [Place(pointer=error.pointer, detail=error.detail)]
    return []


def _place(entry: dict[str, JsonValue]) -> Place:
    detail = entry.get("detail", entry.get("message", ""))
    return Place(pointer=str(entry.get("pointer", "")), detail=str(detail))


def _headers(error: WhylightError, status: int) -> dict[str, str]:
    headers = {}
    wait = error.facts.get("retry_after", RETRY_AFTER if error.retryable else None)
    if wait is not None:
        headers["Retry-After"] = str(wait)
    if status == status_of(Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="whylight"'
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.facts.get('size', '*')}"
    return headers


async def _on_failure(request: Request, error: Exception) -> Response:
    known = error if isinstance(error, WhylightError) else InternalError("")
    return respond(known, request.state.request_id)


async def _on_invalid(request: Request, error: Exception) -> Response:
    """Replace the framework's answer, which repeats what the caller sent."""
    found: Sequence[Any] = error.errors() if isinstance(error, RequestValidationError) else ()
    return respond(invalid(found), request.state.request_id)


async def _on_router(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    known: WhylightError
    match status:
        case 404:
            known = NotFound("There is no such path; /docs lists those there are.")
        case 405:
            known = MethodNotAllowed("The resource does not know this verb; see /docs.")
        case _:
            known = MalformedBody("The request cannot be read.")
    response = respond(known, request.state.request_id)
    if status == status_of(MethodNotAllowed):
        response.headers["Allow"] = ", ".join(sorted(_verbs(request)))
    return response


def _verbs(request: Request) -> set[str]:
    """Return the verbs that the request's path knows, over all of its routes."""
    asked = {"type": "http", "path": request.url.path, "root_path": "", "headers": []}
    return {
        verb
        for verb in VERBS
        if any(r.matches({**asked, "method": verb})[0] is Match.FULL for r in request.app.routes)
    }


_SAFE_TOKEN = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_BRANCH = re.compile(r"(constrained-)?(int|float|str|bool)")
"""How pydantic names one of the forms that a field may have, as if it were a field itself."""

_MISFIT = ("_type", "_parsing")
"""Ends of the errors of a value that is of another form altogether."""


def _pointer(error: ErrorDetails) -> str:
    """Return the place of an error; an odd key is told by the object that holds it."""
    tokens = place_of(error)
    if tokens and _BRANCH.fullmatch(tokens[-1]) and error["type"] != "extra_forbidden":
        tokens.pop()
    return "".join(f"/{each}" for each in takewhile(_SAFE_TOKEN.fullmatch, tokens))


def _detail(found: Sequence[ErrorDetails]) -> str:
    """Return what is wrong with one field, in words that hold nothing the caller sent.

    Of a field that may have several forms, the form that was meant is told of.
    """
    meant = [each for each in found if not each["type"].endswith(_MISFIT)]
    told = (sentence(each, _MESSAGES, _unfit) for each in meant or found)
    return " Or: ".join(dict.fromkeys(told))


_unfit = says("This value is not valid here.")

_MESSAGES = MESSAGES | {"value_error": says("{error}.")}


# --------------------------------------------------------------- documentation


def catalog() -> dict[str, type[WhylightError]]:
    """Return every class of failure that can be shown, by code."""
    found: dict[str, type[WhylightError]] = {}
    waiting = [WhylightError]
    while waiting:
        for each in waiting.pop().__subclasses__():
            waiting.append(each)
            if each is not JobFailure:
                found.setdefault(each.code, each)
    return dict(sorted(found.items()))


def answers(*kinds: type[WhylightError]) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's description of the problems that an operation answers with.

    What every operation behind a key can answer is added.
    """
    by_status: dict[int, dict[str, type[WhylightError]]] = defaultdict(dict)
    for kind in (*kinds, *EVERYWHERE):
        by_status[status_of(kind)][kind.code] = kind
        if kind is AbsurdDimensions:
            by_status[413][kind.code] = kind
    return {status: _answer(status, by_status[status]) for status in sorted(by_status)}


EVERYWHERE: tuple[type[WhylightError], ...] = (
    Unauthenticated,
    Forbidden,
    InvalidRequest,
    InternalError,
    QueueUnavailable,
    StoreUnavailable,
)
"""What any operation behind a key can answer."""


def _answer(status: int, kinds: dict[str, type[WhylightError]]) -> dict[str, Any]:
    """Describe one status: the problems that lead to it, with an example of each."""
    return {
        "description": "; ".join(f"{kind.title} (`{code}`)" for code, kind in kinds.items()),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {code: {"value": _example(status, kinds[code])} for code in kinds},
            }
        },
    }


def _example(status: int, kind: type[WhylightError]) -> dict[str, JsonValue]:
    doc = (kind.__doc__ or "").strip().splitlines()[0]
    error = kind(doc)
    shown = describe(error, "rq_0123456789abcdefghjkmnpqrs")
    return {**shown.model_dump(mode="json"), "status": status}
