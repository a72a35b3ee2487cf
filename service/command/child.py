"""A child process: started in its own session, watched, stopped in good order."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1  # from linux/prctl.h
LAST_LINES = 15
_LIBC = ctypes.CDLL(None)  # opened here: nothing may be loaded between fork and exec


def _end_with_parent() -> None:
    """Ask the kernel to end this process when the command is killed."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One part of the stack.

    It gets a session of its own, so that ctrl-C reaches only the command,
    which then stops its children in their order.

    Parameters
    ----------
    name
        What people call it.
    arguments
        Program and arguments.
    log
        File that takes its output; begun anew.
    environment
        The whole environment of the process.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
                preexec_fn=_end_with_parent  # noqa: PLW1509 - one call, no thread runs yet
                if sys.platform == "linux"
                else None,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ended(self) -> int | None:
        """Return the exit status, or `None` while it runs."""
        return self._process.poll()

    def stop(self, seconds: float) -> bool:
        """Ask it to end and wait `seconds`; kill it and return false if it does not."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return True

    def last_lines(self) -> str:
        """Return the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LAST_LINES:])
