"""One slot's process: tasks in, answers out, until the other side closes.

``python -m workers.slot_main DESCRIPTOR TASKS BYTES`` reads requests as JSON
lines from the socket `DESCRIPTOR`, runs them with at most `BYTES` of address
space, and answers each with one line. `TASKS` names a module whose ``TASKS``
maps a task's name to a function from `dict` to `dict`.
"""

import importlib
import json
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from service.errors.base import WhylightError

OUT_OF_MEMORY = 77
"""Exit status of a process that needed more memory than it may have."""

Task = Callable[[dict[str, Any]], dict[str, Any]]


def main(descriptor: int, module: str, address_space_bytes: int) -> None:
    """Serve requests until the socket closes.

    Signals meant for the worker reach its whole group: they are let pass here,
    so that jobs in hand can still end while the worker drains.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold a patient's pixels
    tasks: Mapping[str, Task] = importlib.import_module(module).TASKS
    resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes, address_space_bytes))
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rb") as requests:
        for line in requests:
            answer = serve(tasks, json.loads(line))
            connection.sendall(json.dumps(answer).encode() + b"\n")


def serve(tasks: Mapping[str, Task], request: dict[str, Any]) -> dict[str, Any]:
    """Run one request; failures become records.

    The kernel ends the process when the time is up, even in a decoder that
    holds the interpreter, and even if the worker that would do so is gone.
    """
    signal.setitimer(signal.ITIMER_REAL, request["seconds"])
    try:
        return {"result": tasks[request["task"]](request["message"])}
    except WhylightError as error:
        return {"failure": error.failure().model_dump(mode="json")}
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001 - a bug: told by its place, never by its text
        return {"bug": type(error).__name__, "at": places(error)}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def places(error: BaseException) -> list[str]:
    """Return where an error came from, innermost last, without any value."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{os.path.basename(each.filename)}:{each.lineno} {each.name}" for each in frames]  # noqa: PTH119 - a frame's name, not a path to open


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
