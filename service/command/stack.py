"""The stack of one machine: Redis, gateway and worker as processes of their own."""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Final
from urllib.parse import quote

from service.command import own_redis
from service.command.child import Child
from service.command.environment import QUEUE_URL, STORE_URL, read_settings
from service.command.failure import CommandFailure
from service.command.home import Home, Running
from service.settings import PREFIX, Settings

CHOSEN_FROM: Final = range(16_384, 32_768)
"""Ports that are no system's own choice for outgoing connections."""

READY_WITHIN = 180.0  # a cold import of torch takes half a minute on a slow disk
GATEWAY_ENDS_WITHIN = 20.0
REDIS_ENDS_WITHIN = 10.0
MARGIN = 10.0  # beyond the worker's own grace
PAUSE = 0.1
GATEWAY_METRICS = "WHYLIGHT_HTTP__METRICS_PORT"
WORKER_METRICS = "WHYLIGHT_WORKER__METRICS_PORT"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is about to run, and where."""

    home: Home
    host: str
    port: int
    metrics_port: int
    """Of the gateway; 0 for none."""

    worker_metrics: tuple[str, int]
    """The worker's metrics address; port 0 for none."""

    socket: Path | None
    """Socket of the stack's own Redis; `None` when the environment names a server."""

    queue_url: str
    store_url: str

    @property
    def url(self) -> str:
        """Address of the gateway as this machine sees it."""
        return f"http://{_reached(self.host)}:{self.port}"

    @property
    def metrics(self) -> dict[str, str]:
        """Addresses of what Prometheus scrapes, by part."""
        places = {"gateway": (self.host, self.metrics_port), "worker": self.worker_metrics}
        return {
            part: f"http://{_reached(host)}:{port}/metrics"
            for part, (host, port) in places.items()
            if port
        }

    def environment(self) -> dict[str, str]:
        """Return the environment of every process of the stack."""
        return os.environ | {
            QUEUE_URL: self.queue_url,
            STORE_URL: self.store_url,
            "WHYLIGHT_HTTP__HOST": self.host,
            "WHYLIGHT_HTTP__PORT": str(self.port),
            GATEWAY_METRICS: str(self.metrics_port),
            WORKER_METRICS: str(self.worker_metrics[1]),
            "PYTHONUNBUFFERED": "1",
        }

    def settings(self) -> Settings:
        """Return the settings as the stack's processes will read them."""
        settings = Settings()
        return settings.model_copy(
            update={
                "queue": settings.queue.model_copy(update={"url": self.queue_url}),
                "store": settings.store.model_copy(update={"url": self.store_url}),
            }
        )


class Stack:
    """The running processes, started in order, stopped in reverse of the data's way.

    Parameters
    ----------
    plan
        What runs where.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.children: list[Child] = []
        """Those that must stay alive."""

    def start(self, name: str, module: str) -> None:
        """Start a Python program of the house."""
        self.children.append(
            Child(
                name,
                [sys.executable, "-m", module],
                self.plan.home.logs / f"{name}.log",
                self.plan.environment(),
            )
        )

    def check(self) -> None:
        """Raise `CommandFailure` when a part has ended by itself."""
        for child in self.children:
            status = child.ended()
            if status is not None:
                raise CommandFailure(
                    f"The {child.name} ended by itself (status {status}).",
                    f"See {child.log}:\n{child.last_lines()}",
                )

    def wait_for(self, what: str, ready: Callable[[], bool], seconds: float = READY_WITHIN) -> None:
        """Wait until `ready` answers true, while every part lives.

        Raises
        ------
        CommandFailure
            A part ended, or the time is up.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise CommandFailure(
                    f"{what} did not come within {seconds:.0f} seconds.",
                    f"See the logs in {self.plan.home.logs}.",
                )
            time.sleep(PAUSE)

    def stop(self, grace: float) -> None:
        """Drain: the gateway first, then the worker within its `grace`, Redis last."""
        limits = {
            "gateway": GATEWAY_ENDS_WITHIN,
            "worker": grace + MARGIN,
            "redis": REDIS_ENDS_WITHIN,
        }
        for name, seconds in limits.items():
            for child in [each for each in self.children if each.name == name]:
                if not child.stop(seconds):
                    print(f"The {name} did not end in {seconds:.0f} s and was killed.")


def plan(home: Home, settings: Settings, socket_path: Path, *, port: int | None) -> Plan:
    """Decide where everything runs; a Redis or store that the environment names is used.

    Parameters
    ----------
    home
        Where the stack lives.
    settings
        The environment's settings.
    socket_path
        Socket of the stack's own Redis, if it gets one.
    port
        The gateway's; 0 for a free one, `None` for the settings' own.
    """
    free = port == 0
    host = settings.http.host
    queue_url = os.environ.get(QUEUE_URL)
    metrics_port = settings.http.metrics_port
    if free and GATEWAY_METRICS not in os.environ:
        metrics_port = free_port(host)
    return Plan(
        home=home,
        host=host,
        port=free_port(host) if free else (port or settings.http.port),
        metrics_port=metrics_port,
        worker_metrics=_worker_metrics(settings, beside=metrics_port),
        socket=None if queue_url else socket_path,
        queue_url=queue_url or f"unix://{quote(str(socket_path))}",
        store_url=os.environ.get(STORE_URL) or home.store.as_uri(),
    )


def _worker_metrics(settings: Settings, *, beside: int) -> tuple[str, int]:
    """Return where the worker shows its metrics: as it was told, else beside the gateway's."""
    host, port = settings.worker.metrics_host, settings.worker.metrics_port
    if beside and WORKER_METRICS not in os.environ:
        port = beside + 1 if _is_free(host, beside + 1) else free_port(host)
    return host, port


def _reached(host: str) -> str:
    """Return the address by which this machine reaches what listens at `host`."""
    return "127.0.0.1" if host in {"0.0.0.0", "::", ""} else host  # noqa: S104 - compared, not bound


def free_port(host: str) -> int:
    """Return a port that nobody listens on, nor that a connection may take meanwhile.

    Seconds pass before it is bound, and outgoing connections take theirs from higher up.
    """
    tried = SystemRandom().sample(CHOSEN_FROM, 100)
    port = next((each for each in tried if _is_free(host, each)), None)
    if port is None:
        raise CommandFailure(f"No port is free at {host}.")
    return port


def _is_free(host: str, port: int) -> bool:
    """Tell whether nobody listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            return False
    return True


def refuse_taken_ports(chosen: Plan) -> None:
    """Raise `CommandFailure` when somebody listens where a part of the stack should."""
    if not _is_free(chosen.host, chosen.port):
        raise CommandFailure(
            f"Port {chosen.port} on {chosen.host} is taken.",
            "Stop what listens there, or choose another with --port; 0 finds a free one.",
        )
    for part, variable, (host, port) in (
        ("gateway", GATEWAY_METRICS, (chosen.host, chosen.metrics_port)),
        ("worker", WORKER_METRICS, chosen.worker_metrics),
    ):
        if port and not _is_free(host, port):
            raise CommandFailure(
                f"Port {port} on {host}, for the {part}'s metrics, is taken.",
                f"Stop what listens there, or set {variable} to another port; 0 shows none.",
            )


@contextmanager
def running(home: Home, *, port: int | None) -> Iterator[Stack]:
    """Run the stack in `home`; what was started is stopped at the end, whatever happens.

    The parts are started, not yet ready: ask :meth:`Stack.wait_for`. `port` is
    that of :func:`plan`.

    Raises
    ------
    CommandFailure
        The home or a port is taken, or Redis does not start.
    """
    settings = read_settings()
    with ExitStack() as rooms:
        rooms.enter_context(home.claim())
        socket_path = rooms.enter_context(home.socket())
        chosen = plan(home, settings, socket_path, port=port)
        refuse_taken_ports(chosen)
        stack = Stack(chosen)
        rooms.callback(stack.stop, settings.worker.grace.total_seconds())
        if chosen.socket is not None:
            stack.children.append(_start_redis(chosen, chosen.socket))
        stack.start("gateway", "api.main")
        stack.start("worker", "workers.main")
        rooms.enter_context(home.announce(_record(chosen)))
        yield stack


def _start_redis(chosen: Plan, socket_path: Path) -> Child:
    """Start the stack's own Redis."""
    log = chosen.home.logs / "redis.log"
    return own_redis.start(chosen.home.redis, socket_path, log, _plain(os.environ))


def _plain(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` without our own variables: Redis needs none of them."""
    return {name: value for name, value in environment.items() if not name.startswith(PREFIX)}


def _record(chosen: Plan) -> Running:
    """Return what other commands may know."""
    return Running(
        pid=os.getpid(),
        url=chosen.url,
        queue_url=chosen.queue_url,
    )
