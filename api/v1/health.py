"""Health: whether the process turns, and whether it can serve."""

from collections.abc import Callable
from typing import Final

from fastapi import APIRouter, Response

from api.context import Here
from api.problems import RETRY_AFTER
from api.v1.wire import LiveBody, ReadyBody
from service.errors.base import WhylightError

router = APIRouter(prefix="/healthz", tags=["health"])

OK: Final = "ok"


@router.get("/live", operation_id="getLive", summary="Whether the process turns")
async def live() -> LiveBody:
    """Answer, which needs nothing but the process itself."""
    return LiveBody(live=True)


@router.get(
    "/ready",
    operation_id="getReady",
    summary="Whether requests can be served",
    responses={503: {"model": ReadyBody, "description": "They cannot; `checks` says why."}},
)
def ready(here: Here, response: Response) -> ReadyBody:
    """Ask queue, store and fleet; a draining process is not ready."""
    checks = {
        "queue": _ask(here.backends.queue.ping),
        "store": _ask(here.backends.store.ping),
        "fleet": _ask(here.backends.fleet.workers),
        "process": "draining" if here.drain.begun else OK,
    }
    good = all(each == OK for each in checks.values())
    response.status_code = 200 if good else 503
    if not good:
        response.headers["Retry-After"] = str(RETRY_AFTER)
    return ReadyBody(ready=good, checks=checks)


def _ask(question: Callable[[], object]) -> str:
    """Return ``ok``, or the code of the failure."""
    try:
        question()
    except WhylightError as error:
        return error.code
    return OK
