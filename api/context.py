"""What one request may use."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from api.intake.base import Scratch
from service.backends import Backends
from service.explain import Explain
from service.packages import ModelPackages
from service.registrations import Registrations
from service.settings import Settings

T = TypeVar("T")

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 0.5
LONGER = 1.2
"""Each pause is so many times the one before: a caller waits a fifth longer than the job takes."""


@dataclass
class Drain:
    """Whether the process is ending."""

    begun: bool = False


@dataclass(frozen=True)
class Gateway:
    """What lives as long as the process."""

    settings: Settings
    backends: Backends
    explain: Explain
    packages: ModelPackages
    registrations: Registrations
    scratch: Scratch
    drain: Drain = field(default_factory=Drain)

    def url(self, path: str) -> str:
        """Return a link as callers see it."""
        return f"{(self.settings.http.public_url or '').rstrip('/')}{path}"

    async def wait_until(
        self, ask: Callable[[], T], done: Callable[[T], bool], seconds: float, request: Request
    ) -> T:
        """Ask again and again until `done`, and return the last answer.

        No thread is held between questions. It ends early when the caller has
        left or the process drains.
        """
        until = asyncio.get_running_loop().time() + seconds
        pause = FIRST_PAUSE
        while True:
            answer = await run_in_threadpool(ask)
            left = until - asyncio.get_running_loop().time()
            if done(answer) or left <= 0 or self.drain.begun or await gone(request):
                return answer
            await asyncio.sleep(min(pause, left))
            pause = min(pause * LONGER, LONGEST_PAUSE)


gone: Callable[[Request], Awaitable[bool]] = Request.is_disconnected


def gateway(request: Request) -> Gateway:
    """Return what the application was made with."""
    found: Gateway = request.app.state.gateway
    return found


Here = Annotated[Gateway, Depends(gateway)]
