"""Tasks that behave badly, to be run in slots of their own."""

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any

from service.errors.studies import UnsupportedImage


def echo(message: dict[str, Any]) -> dict[str, Any]:
    """Answer with the message and the process that saw it."""
    return {**message, "pid": os.getpid()}


def segfault(message: dict[str, Any]) -> dict[str, Any]:
    """Read memory that is nobody's."""
    ctypes.string_at(0)
    return message


def hang(message: dict[str, Any]) -> dict[str, Any]:
    """Never answer, and hold the interpreter, as a stuck decoder does."""
    ctypes.PyDLL(None).sleep(3600)
    return message


def swallow(message: dict[str, Any]) -> dict[str, Any]:
    """Ask for more memory than there is."""
    return {"bytes": len(bytearray(message["bytes"]))}


def refuse(message: dict[str, Any]) -> dict[str, Any]:
    """Fail as foreseen."""
    raise UnsupportedImage("Not this one.", frames=message["frames"])


def stumble(message: dict[str, Any]) -> dict[str, Any]:
    """Fail as nobody foresaw, with a patient in the text."""
    raise KeyError(message["patient"])


def doze(message: dict[str, Any]) -> dict[str, Any]:
    """Answer late; leave a file first where one is wanted."""
    if "begun" in message:
        Path(message["begun"]).touch()
    time.sleep(message["seconds"])
    return {"pid": os.getpid()}


def modules(message: dict[str, Any]) -> dict[str, Any]:
    """Tell which packages are loaded where the product's own tasks are."""
    __import__(message["tasks"])
    return {"loaded": sorted({name.split(".")[0] for name in sys.modules})}


TASKS = {
    each.__name__: each for each in (echo, segfault, hang, swallow, refuse, stumble, doze, modules)
}
