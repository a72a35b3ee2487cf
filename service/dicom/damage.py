"""Whose fault a failure to decode is: that of the data, or ours."""

import struct
from types import TracebackType
from typing import Final

OURS: Final = frozenset({"api", "service", "workers"})
UNFIT: Final = (ArithmeticError, EOFError, UnicodeError, ValueError, struct.error)
"""What Python raises when a value read from a file does not fit, wherever that is noticed."""


def is_damage(error: Exception) -> bool:
    """Tell whether a library gave up on the data, or a value of it did not fit.

    A `TypeError`, `AttributeError`, `LookupError` or the like out of code of ours is a
    bug, and must not be told as damaged pixels.
    """
    return isinstance(error, UNFIT) or _origin(error.__traceback__) not in OURS


def _origin(trace: TracebackType | None) -> str:
    """Return the package of the innermost frame."""
    name = ""
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return name.partition(".")[0]
