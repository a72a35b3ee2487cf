"""A stack started as an operator starts it: ``whylight up``, in a home of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from service.command import packages
from service.command.client import Client

STARTS_WITHIN = 150.0
ENDS_WITHIN = 60.0
COMMAND = (sys.executable, "-m", "service.command.main")
FEW_MODELS = (sys.executable, "-m", "tests.support.few_models")
CHEST = ("chest-phantom",)
ROOT = Path(__file__).parents[2]


@dataclass
class Up:
    """A running ``whylight up`` and what it printed."""

    home: Path
    process: subprocess.Popen[str]
    printed: str = ""
    _environment: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def url(self) -> str:
        """Address of the gateway."""
        return self._said("Address")

    def metrics(self, part: str) -> str:
        """Address of the metrics of gateway or worker."""
        found = re.search(rf"^Metrics +(\S+) \({part}\)$", self.printed, re.MULTILINE)
        assert found is not None, self.printed
        return found.group(1)

    @property
    def key(self) -> str:
        """The key of the first start."""
        return self._said("API key ")

    def client(self, key: str | None = None) -> httpx.Client:
        """Return a client with the first key, or another."""
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=90.0, trust_env=False)

    def add_models(self, *names: str) -> None:
        """Register more of the bundled models and wait until they are served."""
        with Client(self.url, self.key) as client:
            for sent in [packages.register(client, packages.BUNDLED / each) for each in names]:
                packages.wait_until_probed(client, sent)

    def command(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run another ``whylight`` command beside the stack."""
        return subprocess.run(
            [*COMMAND, *words],
            env=self._environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; return the exit status."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=ENDS_WITHIN)
        self.printed += rest
        return self.process.returncode

    def children(self) -> dict[str, psutil.Process]:
        """Return the stack's processes by what they are."""
        found = {}
        for each in psutil.Process(self.process.pid).children():
            words = " ".join(each.cmdline())
            name = next((n for n in ("redis", "api.main", "workers.main") if n in words), words)
            found[name] = each
        return found

    def _said(self, what: str) -> str:
        found = re.search(rf"^{what}\s+(\S+)$", self.printed, re.MULTILINE)
        assert found is not None, self.printed
        return found.group(1)


@contextmanager
def up(home: Path | None = None, models: Sequence[str] | None = CHEST) -> Iterator[Up]:
    """Run ``whylight up`` on a free port until the block ends.

    It registers those of the bundled models that are named; `None` for all, as an
    operator's does.
    """
    folder = home or Path(tempfile.mkdtemp(prefix="wl-up-"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WHYLIGHT_")}
    command = COMMAND if models is None else (*FEW_MODELS, ",".join(models))
    process = subprocess.Popen(
        [*command, "up", "--home", str(folder), "--port", "0"],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    running = Up(folder, process, _environment=environment)
    try:
        _read_until_ready(running)
        yield running
    finally:
        if process.poll() is None:
            running.stop()
        elif process.stdout is not None and not process.stdout.closed:
            rest = process.stdout.read()
            raise AssertionError(f"The stack ended by itself: {rest}")
        if home is None:
            shutil.rmtree(folder, ignore_errors=True)


def _read_until_ready(running: Up) -> None:
    """Collect what the command prints until it stays."""
    assert running.process.stdout is not None
    deadline = time.monotonic() + STARTS_WITHIN
    for line in running.process.stdout:
        running.printed += line
        if line.startswith("Ctrl-C"):
            return
        assert time.monotonic() < deadline, running.printed
    raise AssertionError(running.printed)
