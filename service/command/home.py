"""The folder in which a stack of one machine lives.

Nobody but its owner can enter it: it holds the studies, the results, the
digests of the keys and the socket of the stack's own Redis.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from service.command.failure import CommandFailure
from service.domain.value import Value

DEFAULT = Path("~/.whylight")
LONGEST_SOCKET_PATH = 100  # the kernel's limit is 108 bytes with the final zero
PRIVATE = 0o700


class Running(Value):
    """What a stack tells other commands about itself, in ``running.json``."""

    pid: int
    url: str
    """Address of the gateway."""

    queue_url: str


@dataclass(frozen=True, slots=True)
class Home:
    """The folder and where things lie in it."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> "Home":
        """Make the folder, private, if it is not there yet."""
        path = path.expanduser().absolute()
        home = cls(path)
        for folder in (path, home.redis, home.store, home.logs):
            folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        path.chmod(PRIVATE)
        return home

    @property
    def redis(self) -> Path:
        """Where the stack's own Redis writes its append-only file."""
        return self.path / "redis"

    @property
    def store(self) -> Path:
        """The object store: studies, results, model packages."""
        return self.path / "store"

    @property
    def logs(self) -> Path:
        """What gateway, worker and Redis print."""
        return self.path / "logs"

    @contextmanager
    def socket(self) -> Iterator[Path]:
        """Lend the path of Redis' socket; a short private one if the home lies deep."""
        path = self.redis / "redis.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="whylight-") as folder:
            yield Path(folder) / "redis.sock"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the home for one stack; the system frees it when the process ends.

        Raises
        ------
        CommandFailure
            Another stack lives here.
        """
        with (self.path / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CommandFailure(
                    f"Another stack is running in {self.path}.",
                    "Stop it, or give this one a folder of its own with --home.",
                ) from None
            yield

    @contextmanager
    def announce(self, running: Running) -> Iterator[None]:
        """Tell other commands of the stack while it runs."""
        record = self.path / "running.json"
        record.write_text(running.model_dump_json(indent=2) + "\n")
        try:
            yield
        finally:
            record.unlink(missing_ok=True)

    def running(self) -> Running | None:
        """Return what a stack here told of itself; `None` when none runs."""
        try:
            record = Running.model_validate_json((self.path / "running.json").read_text())
            os.kill(record.pid, 0)
        except (OSError, ValidationError):
            return None
        return record
