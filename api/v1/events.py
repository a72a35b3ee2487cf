"""A job's events as server-sent events, resumable by Last-Event-ID."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.auth import Reader
from api.context import FIRST_PAUSE, LONGER, LONGEST_PAUSE, Gateway, Here
from api.problems import answers
from api.v1.wire import EventBody, time_of
from service.errors.base import WhylightError
from service.errors.requests import NotFound
from service.keys import Caller
from service.queue.base import Event

router = APIRouter(prefix="/v1/explanations", tags=["explanations"])

MEDIA_TYPE: Final = "text/event-stream"
BEAT: Final = 15.0
"""Seconds of silence after which a comment keeps proxies from closing the stream."""

RETRY: Final = b"retry: 1000\n\n"
RECONNECT: Final = b"event: reconnect\ndata: {}\n\n"
COMMENT: Final = b": \n\n"
EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "event": {"enum": ["progress", "reconnect"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/EventBody"},
        },
    },
}
"""One event of the stream, as JSON schema sees it."""


@router.get(
    "/{explanation_id}/events",
    operation_id="streamEvents",
    summary="Follow an explanation's events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Events `progress`, each with an EventBody, until the job has ended;"
            " `reconnect` when the stream must end before that.",
            "content": {MEDIA_TYPE: {"schema": EVENT}},
        },
        204: {"description": "The job has ended and every event was seen."},
        **answers(NotFound),
    },
)
async def events(
    explanation_id: str,
    request: Request,
    here: Here,
    caller: Reader,
    last_event_id: Annotated[str | None, Header(max_length=32)] = None,
) -> Response:
    """Stream a job's events, from the one after Last-Event-ID on."""

    def ask(after: str | None) -> Sequence[Event]:
        return here.explain.events(caller, explanation_id, after=after)

    job = await run_in_threadpool(here.explain.glance, caller, explanation_id)
    first = await run_in_threadpool(ask, last_event_id or None)
    if not first and job.state.ended:
        return Response(status_code=204)
    follower = _Follower(here, caller, explanation_id, request)
    return StreamingResponse(follower.stream(first, last_event_id), media_type=MEDIA_TYPE)


class _Follower:
    """Follows one job for one caller; holds no thread while it waits."""

    def __init__(self, here: Gateway, caller: Caller, job_id: str, request: Request) -> None:
        self._here = here
        self._caller = caller
        self._job_id = job_id
        self._request = request

    async def stream(self, found: Sequence[Event], seen: str | None) -> AsyncIterator[bytes]:
        """Yield events until the last one, or a wish to reconnect."""
        yield RETRY
        pause, silent = FIRST_PAUSE, 0.0
        while True:
            for event in found:
                yield _written(event)
                if event.state.ended:
                    return
                seen, pause, silent = event.id, FIRST_PAUSE, 0.0
            if await self._must_end():
                yield RECONNECT
                return
            if silent >= BEAT:
                yield COMMENT
                silent = 0.0
            await asyncio.sleep(pause)
            silent += pause
            pause = min(pause * LONGER, LONGEST_PAUSE)
            try:
                found = await run_in_threadpool(self._ask, seen)
            except WhylightError:  # purged, or no Redis: the next connection is told which
                yield RECONNECT
                return

    async def _must_end(self) -> bool:
        return self._here.drain.begun or await self._request.is_disconnected()

    def _ask(self, seen: str | None) -> Sequence[Event]:
        return self._here.explain.events(self._caller, self._job_id, after=seen)


def _written(event: Event) -> bytes:
    """Return an event as it goes over the wire."""
    body = EventBody.model_validate(
        {
            "state": event.state,
            "stage": event.stage,
            "progress": event.progress / 1000,
            "at": time_of(event.at),
        }
    )
    return f"id: {event.id}\nevent: progress\ndata: {body.model_dump_json()}\n\n".encode()
