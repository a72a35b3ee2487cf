"""Whose fault a failure to read is: that of the data, or ours."""

from types import TracebackType
from typing import Final

OURS: Final = frozenset({"api", "service", "workers"})


def is_damage(error: Exception) -> bool:
    """Tell whether a library gave up on the data it was given.

    What comes out of code of ours, whatever its type, is a bug and must not be told as
    damaged pixels: a value that may be unfit is checked where it is read. The system's own
    failures (a full disk) are no damage either; they bear a number, while pydicom's
    `OSError` of a sequence that ends early has none.
    """
    if isinstance(error, OSError):
        return error.errno is None
    return _origin(error.__traceback__) not in OURS


def _origin(trace: TracebackType | None) -> str:
    """Return the package of the innermost frame."""
    name = ""
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return name.partition(".")[0]
