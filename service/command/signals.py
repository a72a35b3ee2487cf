"""Ctrl-C and SIGTERM: the first one ends the command's work in good order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The person at the terminal, or the system, asked the command to end."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` at the first signal; those that follow change nothing.

    What is stopped then is stopped in order; whoever cannot wait sends SIGKILL,
    and the children end with their parent.
    """
    asked = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise Interrupted

    before = {each: signal.signal(each, interrupt) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
