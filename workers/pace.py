"""How many rows a batch of one group should have: measured, never guessed."""

import math
import sys
import time
from collections import deque
from statistics import median
from typing import Final

from workers.runtimes.base import Fit

RECENT: Final = 9
"""Calls whose median is the rate: one disturbed call must not shrink the slice."""

REOPEN: Final = 100
"""Clean batches after which a limit is tried one step further again."""

LONE: Final = 4
"""How many slices a batch may take while one job has the device to itself."""

QUIET: Final = 1.0
"""Seconds since two jobs were last at hand, after which one counts as alone."""


class Slice:
    """How long a batch may take: longer where nobody waits, and nobody is likely to.

    A network whose row takes as long as a slice would be served row by row, which
    costs up to half its speed. Where jobs meet, the slice holds at once, and for a
    while after: who arrived once beside a long job may arrive again.

    Parameters
    ----------
    seconds
        Longest a batch should take beside other jobs; `LONE` times that alone.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._met = -math.inf

    def seconds(self, jobs: int) -> float:
        """Return the seconds that a batch may take while so many jobs are at hand."""
        now = time.monotonic()
        if jobs > 1:
            self._met = now
        return self._seconds * (LONE if now - self._met > QUIET else 1)


class Pace:
    """Rows to a batch: the least of memory, best measured chunk and time slice.

    The first batch has one row. After it the chunk doubles as long as a row
    gets cheaper, within the memory limit and the time slice; a batch that did
    not fit halves the limit, whatever memory there should have been.

    Parameters
    ----------
    fit
        What the runtime says of the group.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self._limit = fit.within(sys.maxsize)
        self._recent: dict[int, deque[float]] = {}
        self._rates: dict[int, float] = {}
        """Usual seconds a row, by size."""
        self._clean = 0

    @property
    def known(self) -> bool:
        """Whether a batch was measured yet."""
        return bool(self._rates)

    @property
    def fixed(self) -> bool:
        """Whether every batch has the same size, the deterministic mode."""
        return self._fit.fixed

    def timed(self, rows: int) -> bool:
        """Tell whether batches of about so many rows were measured."""
        return _size(rows) in self._rates

    def rows(self, slice_seconds: float, memory: int = sys.maxsize) -> int:
        """Return how many rows the next batch may have within `memory` bytes, at least one."""
        if self._fit.fixed:
            return self._fit.rows or 1
        if not self._rates:
            return 1
        size = self._best()
        by_time = int(slice_seconds / max(self._rates[size], 1e-9))
        reach = size if 2 * size in self._rates else 2 * size
        return max(1, min(self._limit, self._fit.within(memory), reach, by_time))

    def record(self, rows: int, seconds: float) -> None:
        """Remember that a batch of `rows` took `seconds`."""
        size = _size(rows)
        recent = self._recent.setdefault(size, deque(maxlen=RECENT))
        recent.append(seconds / rows)
        self._rates[size] = median(recent)
        self._clean += 1
        if self._clean >= REOPEN:
            self._clean = 0
            self._limit = min(self._fit.within(sys.maxsize), 2 * self._limit)
            further = 2 * self._best()
            self._rates.pop(further, None)
            self._recent.pop(further, None)

    def shrink(self, rows: int) -> None:
        """Remember that a batch of `rows` did not fit."""
        self._limit = max(1, min(self._limit, rows) // 2)
        self._clean = 0

    def _best(self) -> int:
        """Return the measured size with the cheapest rows."""
        return min(self._rates, key=self._rates.__getitem__)


def _size(rows: int) -> int:
    """Return the power of two under which batches of so many rows are filed."""
    return 1 << (rows.bit_length() - 1)
