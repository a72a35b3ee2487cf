"""Supervised processes for CPU stages: one a slot, each replaced when it dies.

A standard process pool breaks as a whole when one codec segfaults; here the
call that met the crash fails, and nobody else notices. Requests and answers
are JSON; arrays travel as ``.npy`` files; nothing is ever pickled.
"""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from service.errors.base import Failure, JobFailure, WhylightError
from service.errors.jobs import SlotDied, StageTimeout
from workers.slot_main import OUT_OF_MEMORY

TASKS: Final = "workers.tasks"
GRACE: Final = 1.0
"""Seconds that the worker waits longer than the slot's own alarm."""

_ONE_THREAD: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class SlotBug(Exception):
    """A task raised something unforeseen; the text tells its type and place only."""


class Slots:
    """A fixed number of processes that run tasks; every method is thread-safe.

    Parameters
    ----------
    count
        Number of processes, started at once.
    address_space_bytes
        Most address space of each process.
    tasks
        Import path of the module that holds the tasks.
    """

    def __init__(self, count: int, *, address_space_bytes: int, tasks: str = TASKS) -> None:
        self._arguments = (tasks, str(address_space_bytes))
        self._idle: queue.Queue[_Slot] = queue.Queue()
        for _ in range(count):
            self._idle.put(_Slot(self._arguments))
        self._count = count

    def run(
        self,
        task: str,
        message: Mapping[str, Any],
        timeout: float,
        *,
        lost: type[WhylightError] | None = None,
    ) -> dict[str, Any]:
        """Run a task in the next idle slot and return its answer.

        Parameters
        ----------
        task
            Name of the task.
        message
            Its argument, as JSON values.
        timeout
            Seconds after which the process is ended; waiting for an idle slot
            is not counted.
        lost
            What to raise when the process crashes, hangs or needs too much
            memory because of what it was given: `UndecodablePixels` for a
            decoder. By default `SlotDied` or `StageTimeout`.

        Raises
        ------
        WhylightError
            What the task raised, or what `lost` says.
        SlotBug
            The task raised something unforeseen.
        """
        slot = self._idle.get()
        try:
            answer = slot.ask(task, message, timeout)
        except BaseException as error:
            slot.end()
            slot = _Slot(self._arguments)
            if lost is not None and isinstance(error, SlotDied | StageTimeout):
                raise lost(error.detail) from error
            raise
        finally:
            self._idle.put(slot)
        return _result(answer)

    def close(self) -> None:
        """End every process once it is idle."""
        for _ in range(self._count):
            self._idle.get().end()

    def __enter__(self) -> Self:
        """Return the slots themselves."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


def _result(answer: dict[str, Any]) -> dict[str, Any]:
    if "failure" in answer:
        raise JobFailure(Failure.model_validate(answer["failure"]))
    if "bug" in answer:
        raise SlotBug(f"{answer['bug']} at {' < '.join(reversed(answer['at']))}")
    result: dict[str, Any] = answer["result"]
    return result


class _Slot:
    """One process and the socket that leads to it."""

    def __init__(self, arguments: tuple[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "workers.slot_main", str(theirs.fileno()), *arguments],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # codecs print, and what they print is a patient's
                env={**os.environ, **_ONE_THREAD},
            )

    def ask(self, task: str, message: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        request = {"task": task, "message": dict(message), "seconds": timeout}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            return self._receive(timeout)
        except TimeoutError:
            raise StageTimeout("The image's process did not answer in time.") from None
        except ConnectionError as error:
            raise self._death() from error

    def _receive(self, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout + GRACE
        pieces: list[bytes] = []
        while not pieces or not pieces[-1].endswith(b"\n"):
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            pieces.append(self._socket.recv(1 << 16))
            if not pieces[-1]:
                raise self._death()
        answer: dict[str, Any] = json.loads(b"".join(pieces))
        return answer

    def _death(self) -> WhylightError:
        """Tell of what the process died."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(GRACE)
            if status == -signal.SIGALRM:  # its own alarm
                return StageTimeout("The image's process did not answer in time.")
            if status == OUT_OF_MEMORY:
                return SlotDied("The image needs more memory than is allowed.")
        return SlotDied("The image made its process crash.")

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
