"""The queue as operators see it: what waits, who works, what was given up."""

from fastapi import APIRouter, Depends

from api.auth import needs
from api.context import Here
from api.problems import answers
from api.v1.wire import (
    DeadLetterBody,
    DeadLettersBody,
    PoolBody,
    QueueBody,
    WorkersBody,
)
from service.domain.job import Priority
from service.errors.requests import NotFound
from service.keys import Scope
from service.queue.base import Depth

router = APIRouter(
    prefix="/v1", tags=["operators"], dependencies=[Depends(needs(Scope.QUEUE_ADMIN))]
)


@router.get("/queue", operation_id="getQueue", summary="Tell what waits", responses=answers())
def depth(here: Here) -> QueueBody:
    """Tell what waits in each pool, and for how long at the present number of workers."""
    crews: dict[str, int] = {}
    for worker in here.backends.fleet.workers():
        crews[worker.pool] = crews.get(worker.pool, 0) + 1
    depths = {each.pool: each for each in here.backends.queue.depth()}
    pools = sorted({*crews, *depths})
    return QueueBody(
        pools=tuple(_pool(depths.get(each) or _idle(each), crews.get(each, 0)) for each in pools)
    )


@router.get(
    "/workers", operation_id="listWorkers", summary="List live workers", responses=answers()
)
def workers(here: Here) -> WorkersBody:
    """List the workers that are alive, with what they hold."""
    return WorkersBody(workers=here.backends.fleet.workers())


@router.get(
    "/dead-letters",
    operation_id="listDeadLetters",
    summary="List jobs that were given up",
    responses=answers(),
)
def dead_letters(here: Here) -> DeadLettersBody:
    """List the jobs of all tenants that were given up, and why."""
    letters = here.backends.queue.dead_letters()
    return DeadLettersBody(dead_letters=tuple(DeadLetterBody.of(each) for each in letters))


@router.get(
    "/dead-letters/{explanation_id}",
    operation_id="getDeadLetter",
    summary="Tell of a job that was given up",
    responses=answers(NotFound),
)
def dead_letter(explanation_id: str, here: Here) -> DeadLetterBody:
    """Tell why one job was given up."""
    for each in here.backends.queue.dead_letters():
        if each.job.id == explanation_id:
            return DeadLetterBody.of(each)
    raise NotFound("There is no such dead letter.")


def _pool(waiting: Depth, crew: int) -> PoolBody:
    wait = waiting.waiting_cost / 1000 / crew if crew else None
    return PoolBody(**waiting.model_dump(), workers=crew, estimated_wait_seconds=wait)


def _idle(pool: str) -> Depth:
    return Depth(
        pool=pool,
        waiting=dict.fromkeys(Priority, 0),
        running=0,
        waiting_cost=0,
        oldest_age=0,
    )
