"""Real worker processes, started as an operator starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.backends import Backends

READY_WITHIN = 120.0
ENDS_WITHIN = 30.0


@dataclass
class WorkerProcess:
    """One ``python -m workers.main``, or another `program`."""

    name: str
    log: Path
    environment: dict[str, str]
    program: tuple[str, ...] = ("-m", "workers.main")
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start the process; it is not ready yet."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program],
                env={**os.environ, "WHYLIGHT_WORKER__NAME": self.name, **self.environment},
                stdout=log,
                stderr=log,
            )

    def send(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGKILL) -> int:
        """End the process by a signal and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.send_signal(signal.SIGCONT)
        return self.process.wait(ENDS_WITHIN)

    def lines(self) -> list[dict[str, Any]]:
        """Return what it logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line]

    def events(self) -> list[str]:
        """Return the names of the events it logged."""
        return [line["event"] for line in self.lines()]


@contextmanager
def running(name: str, folder: Path, environment: dict[str, str]) -> Iterator[WorkerProcess]:
    """Run a worker that logs into `folder`; kill it at the end if it still lives."""
    worker = WorkerProcess(name, folder / f"{name}.log", environment)
    worker.start()
    try:
        yield worker
    finally:
        worker.end()


def wait_ready(backends: Backends, package: str, *workers: WorkerProcess) -> None:
    """Wait until every worker serves a package."""
    until = time.monotonic() + READY_WITHIN
    missing = {worker.name for worker in workers}
    while missing:
        for worker in workers:
            status = worker.process.poll()
            assert status is None, f"ended with {status}:\n{worker.log.read_text()[-3000:]}"
        assert time.monotonic() < until, f"not ready: {missing}"
        time.sleep(0.1)
        missing -= {w.id for w in backends.fleet.workers() if package in w.packages}
