"""The gateway: ``python -m api.main``."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from typing_extensions import override

from api import document, problems
from api.auth import KeyHolder
from api.context import Gateway
from api.envelope import Envelope
from api.intake.base import Scratch
from api.v1 import artifacts, catalog, events, explanations, health, models, queue, studies
from service import telemetry
from service.backends import Backends, open_backends
from service.errors.base import WhylightError
from service.explain import Explain
from service.gauges import watching
from service.packages import ModelPackages
from service.registrations import Registrations
from service.settings import Settings, settings_or_exit
from service.sweeper import Sweeper
from service.telemetry import Log

SWEEP_EVERY: Final = timedelta(hours=1)
GRACE: Final = 15
"""Seconds that answers on their way get when the process is told to end."""


def create_app(gateway: Gateway) -> FastAPI:
    """Return the application over the use cases that it is handed."""
    app = FastAPI(
        title="Whylight",
        version=version("whylight"),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        lifespan=_lifespan,
    )
    app.state.gateway = gateway
    for each in (studies, explanations, events, artifacts, catalog, models, queue, health):
        app.include_router(each.router)
    app.openapi = cache(lambda: document.openapi(app))  # type: ignore[method-assign]
    app.add_api_route("/docs", document.page, include_in_schema=False)
    app.add_api_route(
        "/openapi.json", app.openapi, include_in_schema=False, dependencies=[KeyHolder]
    )
    app.add_middleware(Envelope)
    problems.install(app)
    return app


def open_gateway(settings: Settings, backends: Backends) -> Gateway:
    """Return what the application is made with."""
    scratch = Scratch(settings.http.scratch, settings.limits.scratch_bytes)
    packages = ModelPackages(backends.store, scratch=scratch.folder)
    return Gateway(
        settings=settings,
        backends=backends,
        explain=Explain(backends, settings),
        packages=packages,
        registrations=Registrations(backends, packages, settings.worker.pool),
        scratch=scratch,
    )


class Server(uvicorn.Server):
    """Tells the gateway of a drain before connections are waited for."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain: long polls and streams end, readiness fails.

        The signal is not raised again afterwards, as the base class would: the
        process has to clean up, and its end was asked for.
        """
        self._gateway.drain.begun = True
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def main() -> None:
    """Serve until a signal."""
    settings = settings_or_exit()
    telemetry.configure(settings.log_level, "gateway")
    log = Log()
    try:
        backends = open_backends(settings)
    except WhylightError as error:
        sys.exit(error.detail)
    gateway = open_gateway(settings, backends)
    http = settings.http
    stop_metrics = telemetry.serve_metrics(http.metrics_port, http.host)
    config = uvicorn.Config(
        create_app(gateway),
        host=http.host,
        port=http.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    try:
        Server(config, gateway).run()
    finally:
        log.info("stopped")
        stop_metrics()
        gateway.scratch.close()
        backends.close()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Sweep hourly and show the queue's gauges while the application lives."""
    gateway: Gateway = app.state.gateway
    backends, settings = gateway.backends, gateway.settings
    sweeper = Sweeper(backends, gateway.explain, settings, lambda: time.time_ns() // 1_000_000)
    async with AsyncExitStack() as rooms:
        rooms.enter_context(watching(backends.queue, backends.fleet))
        rooms.push_async_callback(_end, asyncio.create_task(_sweep_hourly(sweeper)))
        Log().info("started", port=settings.http.port, version=app.version)
        yield
        gateway.drain.begun = True
        Log().info("draining")


async def _sweep_hourly(sweeper: Sweeper) -> None:
    """Sweep at once and then every hour; a failure waits for the next turn."""
    while True:
        try:
            await run_in_threadpool(sweeper.sweep)
        except WhylightError as error:
            Log().warning("dependency_down", dependency="sweep", code=error.code)
        except Exception as error:  # noqa: BLE001 - sweeping must not end with one bad record
            Log().bug(error)
        await asyncio.sleep(SWEEP_EVERY.total_seconds())


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    main()
