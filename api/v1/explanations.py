"""Explanations: asked for, followed, cancelled, removed."""

import hashlib
import re
from datetime import datetime
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import AwareDatetime, JsonValue
from starlette.concurrency import run_in_threadpool

from api.auth import Reader, Writer
from api.context import Gateway, Here
from api.problems import answers
from api.v1.asking import read_form, read_request
from api.v1.studies import BINARY, INTAKE_PROBLEMS
from api.v1.wire import (
    ExplanationBody,
    ExplanationsBody,
    JobBody,
    PlanBody,
    Receipt,
)
from service.domain.job import Job, State
from service.errors.jobs import NoWorker, QueueFull, ResultDamaged
from service.errors.models import ModelSilent, ModelUnavailable
from service.errors.requests import (
    Conflict,
    Gone,
    InvalidParameter,
    InvalidTarget,
    KeyReused,
    MalformedBody,
    MethodUncertified,
    MissingAbility,
    NotFound,
    PrecisionNotOffered,
    StudyFull,
    TooLarge,
    UnknownFormat,
    UnknownMethod,
    UnknownModel,
    UnsupportedMediaType,
)
from service.errors.studies import (
    AmbiguousStudy,
    MissingView,
    NotAcceptedByModel,
    SingleImageModel,
    TooFewImages,
    TooFewSlices,
)
from service.explain import Followed
from service.keys import Caller
from service.queue.base import Filter, Submitted

router = APIRouter(prefix="/v1/explanations", tags=["explanations"])

JSON: Final = "application/json"
FORM: Final = "multipart/form-data"
RETRY_AFTER: Final = "1"
_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?:$|[,;\s])")

REQUEST_SCHEMA: Final[dict[str, Any]] = {"$ref": "#/components/schemas/ExplanationRequest"}
EXAMPLE: Final[dict[str, JsonValue]] = {
    "study": "st_0123456789abcdefghjkmnpqrs",
    "model": "chest-phantom",
    "targets": ["top1", {"kind": "class", "of": "nodule", "score": "margin"}],
    "methods": ["grad_cam", {"name": "integrated_gradients", "parameters": {"steps": 32}}],
    "artifacts": ["dicom_sc", "png", "json"],
    "observed": [{"of": "nodule", "score": 0.93, "positive": True}],
}
JSON_BODY: Final[dict[str, Any]] = {"schema": REQUEST_SCHEMA, "example": EXAMPLE}
FORM_BODY: Final[dict[str, Any]] = {
    "schema": {
        "type": "object",
        "required": ["file", "request"],
        "properties": {
            "file": {"type": "array", "items": BINARY["schema"]},
            "request": {
                "type": "object",
                "description": "An ExplanationRequest without its study.",
            },
        },
    }
}

ADMISSION_PROBLEMS: Final = (
    MalformedBody,
    UnsupportedMediaType,
    TooLarge,
    NotFound,
    UnknownModel,
    UnknownMethod,
    UnknownFormat,
    ModelUnavailable,
    MissingAbility,
    MethodUncertified,
    PrecisionNotOffered,
    InvalidParameter,
    InvalidTarget,
    NotAcceptedByModel,
    MissingView,
    TooFewImages,
    TooFewSlices,
    AmbiguousStudy,
    SingleImageModel,
    StudyFull,
    NoWorker,
    ModelSilent,
)
"""Why a request can be refused before anything is queued."""

Wait = Annotated[
    int,
    Query(ge=0, le=60, description="Seconds to wait for the end, or for a change of the ETag."),
]


@router.post(
    "",
    operation_id="createExplanation",
    summary="Ask for an explanation",
    status_code=202,
    response_model=ExplanationBody,
    responses={
        200: {"model": ExplanationBody, "description": "Ended within `Prefer: wait`."},
        **answers(
            *ADMISSION_PROBLEMS,
            *INTAKE_PROBLEMS,
            KeyReused,
            QueueFull,
            ResultDamaged,
        ),
    },
    openapi_extra={
        "requestBody": {"required": True, "content": {JSON: JSON_BODY, FORM: FORM_BODY}}
    },
)
async def create(
    request: Request,
    here: Here,
    caller: Writer,
    idempotency_key: Annotated[str | None, Header(pattern=r"^[!-~]{1,200}$")] = None,
    prefer: Annotated[
        str | None, Header(description="`wait=N`: answer with the finished job if it ends in time.")
    ] = None,
) -> Response:
    """Queue one explanation; the same Idempotency-Key and request give the same job.

    The request is JSON, or a form with the study's files and a part `request`.
    """
    match request.headers.get("content-type", "").partition(";")[0].strip().lower():
        case "application/json":
            ask = await read_request(request, here, caller)
            submitted = await run_in_threadpool(
                here.explain.submissions.submit, caller, ask, idempotency_key
            )
        case "multipart/form-data":
            submitted = await _submit_form(request, here, caller, idempotency_key)
        case _:
            raise UnsupportedMediaType(
                "Send one of the content types in 'supported'.", supported=[JSON, FORM]
            )
    return await _answer(request, here, caller, submitted, _asked_wait(prefer, here))


@router.post(
    ":validate",
    operation_id="validateExplanation",
    summary="Try a request",
    responses=answers(*ADMISSION_PROBLEMS),
    openapi_extra={"requestBody": {"required": True, "content": {JSON: JSON_BODY}}},
)
async def validate(request: Request, here: Here, caller: Writer) -> PlanBody:
    """Tell what a request would lead to, with every parameter; nothing is queued."""
    ask = await read_request(request, here, caller)
    return PlanBody.of(await run_in_threadpool(here.explain.submissions.validate, caller, ask))


@router.get(
    "",
    operation_id="listExplanations",
    summary="List explanations, newest first",
    responses=answers(),
)
def index(
    here: Here,
    caller: Reader,
    *,
    state: State | None = None,
    model: Annotated[
        str | None, Query(max_length=128, description="Name, or name@version.")
    ] = None,
    study: Annotated[str | None, Query(max_length=64)] = None,
    label: Annotated[str | None, Query(max_length=64)] = None,
    created_from: AwareDatetime | None = None,
    created_to: AwareDatetime | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> ExplanationsBody:
    """List the tenant's jobs; a page may be short of its limit and still have a cursor."""
    which = Filter(
        state=state,
        model=model,
        study=study,
        label=label,
        created_from=_milliseconds(created_from),
        created_to=_milliseconds(created_to),
    )
    page = here.explain.list(caller, which, limit=limit, cursor=cursor)
    return ExplanationsBody(
        explanations=tuple(JobBody.of(each, _base(here, each.id)) for each in page.jobs),
        cursor=page.cursor,
    )


@router.get(
    "/{explanation_id}",
    operation_id="getExplanation",
    summary="Follow an explanation",
    response_model=ExplanationBody,
    responses={
        304: {"description": "It is as the ETag in If-None-Match says."},
        **answers(NotFound, Gone, ResultDamaged),
    },
)
async def show(
    explanation_id: str,
    request: Request,
    here: Here,
    caller: Reader,
    *,
    wait: Wait = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Tell how a job stands, and everything about it once it has ended.

    With `wait` the answer comes when the job ends; with `If-None-Match` too,
    as soon as it is no longer what that ETag stands for.
    """
    known = if_none_match or ""

    def ask() -> tuple[Followed, Response]:
        followed = here.explain.follow(caller, explanation_id)
        return followed, _body(followed, here, 200)

    def done(answer: tuple[Followed, Response]) -> bool:
        followed, response = answer
        return followed.job.state.ended or bool(known and response.headers["ETag"] not in known)

    _, response = await here.wait_until(ask, done, wait, request)
    tag = response.headers["ETag"]
    return Response(status_code=304, headers={"ETag": tag}) if tag in known else response


@router.delete(
    "/{explanation_id}",
    operation_id="deleteExplanation",
    summary="Remove an ended explanation",
    responses=answers(NotFound, Conflict),
)
def purge(explanation_id: str, here: Here, caller: Writer) -> Receipt:
    """Remove a job's record and results."""
    return Receipt(id=explanation_id, objects=here.explain.purge(caller, explanation_id))


@router.post(
    "/{explanation_id}/cancel",
    operation_id="cancelExplanation",
    summary="Cancel an explanation",
    status_code=202,
    response_model=ExplanationBody,
    responses={
        200: {"model": ExplanationBody, "description": "It has ended."},
        **answers(NotFound, Gone, ResultDamaged),
    },
)
def cancel(explanation_id: str, here: Here, caller: Writer) -> Response:
    """Cancel a job: a waiting one at once (200), a running one within seconds (202)."""
    job = here.explain.cancel(caller, explanation_id)
    followed = here.explain.follow(caller, explanation_id)
    return _body(followed, here, 200 if job.state.ended else 202)


# ------------------------------------------------------------------- in detail


async def _submit_form(
    request: Request, here: Gateway, caller: Caller, key: str | None
) -> Submitted:
    """Take the study in and ask for its explanation, both or neither."""
    with here.scratch.room() as room:
        fields, parts = await read_form(request, here, room, caller)
        return await run_in_threadpool(
            here.explain.submissions.submit_with_study, caller, parts, fields, key
        )


async def _answer(
    request: Request, here: Gateway, caller: Caller, submitted: Submitted, seconds: int
) -> Response:
    """Answer a submit: with the ended job if it ends within `seconds`, else at once."""
    job = submitted.job

    def glance() -> Job:
        return here.explain.glance(caller, job.id)

    if seconds:
        job = await here.wait_until(glance, lambda it: it.state.ended, seconds, request)
    followed = await run_in_threadpool(here.explain.follow, caller, job.id)
    base = _base(here, job.id)
    if seconds and followed.job.state.ended:
        response = _body(followed, here, 200)
        response.headers["Content-Location"] = base
        response.headers["Preference-Applied"] = f"wait={seconds}"
    else:
        response = _body(followed, here, 202)
        response.headers["Location"] = base
        response.headers["Retry-After"] = RETRY_AFTER
        response.headers["Preference-Applied"] = "respond-async"
    if submitted.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _asked_wait(prefer: str | None, here: Gateway) -> int:
    """Return the seconds that a Prefer header asks to wait, capped; 0 if it does not."""
    found = _WAIT.search((prefer or "").lower())
    longest = int(here.settings.limits.wait.total_seconds())
    return 0 if found is None else min(int(found[1]), longest)


def _base(here: Gateway, job_id: str) -> str:
    return here.url(f"/v1/explanations/{job_id}")


def _content(followed: Followed, here: Gateway) -> bytes:
    body = ExplanationBody.of_followed(followed, _base(here, followed.job.id))
    return orjson.dumps(body.model_dump(mode="json"))


def _tag(content: bytes) -> str:
    """Return a strong ETag."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def _body(followed: Followed, here: Gateway, status: int) -> Response:
    content = _content(followed, here)
    headers = {"ETag": _tag(content)}
    if not followed.job.state.ended:
        headers["Retry-After"] = RETRY_AFTER
    return Response(content, status, headers, JSON)


def _milliseconds(time: datetime | None) -> int | None:
    return None if time is None else int(time.timestamp() * 1000)
