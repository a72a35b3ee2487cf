"""The gateway served by uvicorn on loopback, over a real Redis and a real store."""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn

from api.context import Gateway
from api.main import create_app, open_gateway
from service.backends import Backends, open_backends
from service.keys import Scope
from service.settings import Settings
from tests.support.ports import free_port
from tests.support.redis_server import Server

TENANT = "clinic"
NOBODY, NO_STUDY = "ex_" + "0" * 26, "st_" + "0" * 26
"""Identifiers of an explanation and a study that there are not."""

STARTS_WITHIN = 20.0


@dataclass
class Served:
    """A gateway that answers, and what lies behind it."""

    url: str
    gateway: Gateway
    redis: Server
    store: Path
    scratch: Path

    @property
    def backends(self) -> Backends:
        """What the gateway and the tests' workers share."""
        return self.gateway.backends

    def key(self, tenant: str = TENANT, scopes: Iterable[Scope] = tuple(Scope)) -> str:
        """Return a new API key."""
        return self.backends.keys.create(tenant, scopes)[0]

    def client(self, key: str | None = None, **headers: str) -> httpx.Client:
        """Return a client with a key; without one it is anonymous."""
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return httpx.Client(base_url=self.url, headers=headers, timeout=30.0, trust_env=False)

    def stored(self, *tenants: str) -> list[str]:
        """Return the paths of the objects in tenants' folders (`TENANT`'s by default)."""
        return sorted(
            file.relative_to(self.store).as_posix()
            for tenant in tenants or (TENANT,)
            for file in (self.store / tenant).rglob("*")
            if file.is_file()
        )

    def uploads(self) -> list[Path]:
        """Return the files that uploads have left on the disk."""
        found = (each for _, _, names in os.walk(self.scratch) for each in names)
        return [Path(each) for each in found if Path(each).suffix == ""]


@contextmanager
def serve(redis: Server, folder: Path, **limits: int) -> Iterator[Served]:
    """Serve a gateway; `limits` are fields of `LimitSettings`."""
    settings = Settings.model_validate(
        {
            "queue": {"url": redis.url, "prefix": "t"},
            "store": {"url": (folder / "store").as_uri(), "reserve_bytes": 0},
            "limits": limits,
            "http": {"scratch": folder / "scratch", "metrics_port": 0},
        }
    )
    backends = open_backends(settings)
    gateway = open_gateway(settings, backends)
    port = free_port()
    config = uvicorn.Config(
        create_app(gateway),
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="gateway")
    thread.start()
    try:
        _wait_for(server, thread)
        yield Served(
            f"http://127.0.0.1:{port}", gateway, redis, folder / "store", gateway.scratch.folder
        )
    finally:
        server.should_exit = True
        thread.join(STARTS_WITHIN)
        gateway.scratch.close()
        backends.close()


def _wait_for(server: uvicorn.Server, thread: threading.Thread) -> None:
    until = time.monotonic() + STARTS_WITHIN
    while not server.started:
        assert thread.is_alive(), "the gateway ended by itself"
        assert time.monotonic() < until, "the gateway did not start"
        time.sleep(0.02)
