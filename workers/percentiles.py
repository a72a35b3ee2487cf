"""Exact percentiles of many values, by a sample and one pass."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

CHUNK: Final = 1 << 16
"""Values looked at together; they stay in the processor's cache."""

SAMPLE: Final = 1 << 14
SIGMAS: Final = 4.0
MIDDLE: Final = 50.0

Values = NDArray[Any]


def percentiles(
    values: Values, ranks: Sequence[float], of: Callable[[Values], Values] = lambda piece: piece
) -> tuple[float, ...]:
    """Return percentiles of finite `values`, real or whole, shape ``(N,)``, exactly.

    With `of`, of what it makes of them, piece by piece: no copy of them all is made.

    A sample tells how far in from both ends the percentiles can lie; one pass then
    takes out what lies farther out, which alone is put in order. Where a sample was
    misleading, everything is. The nearer to the ends, the quicker.
    """
    step = -(-values.size // SAMPLE) | 1  # odd, so that it runs through all columns
    ends = _Ends.of(np.sort(of(values[::step])), ranks)
    pieces = (of(values[start : start + CHUNK]) for start in range(0, values.size, CHUNK))
    kept = np.sort(np.concatenate([ends.keep(piece) for piece in pieces]))
    found = [ends.percentile(kept, values.size, rank) for rank in ranks]
    sure = tuple(each for each in found if each is not None)
    return sure if len(sure) == len(found) else tuple(map(float, np.percentile(of(values), ranks)))


@dataclass(frozen=True, slots=True)
class _Ends:
    """The two ends of the values; what lies between them holds none of the percentiles."""

    low: Any
    """The greatest value of the lower end; `None` where there is none."""

    high: Any
    """The least value of the upper end; `None` where there is none."""

    @classmethod
    def of(cls, sample: Values, ranks: Sequence[float]) -> Self:
        """Leave room of `SIGMAS` standard errors beyond each place in an ordered sample."""
        last = len(sample) - 1
        low = [math.ceil(_reach(rank, last, 1)) for rank in ranks if rank < MIDDLE]
        high = [math.floor(_reach(rank, last, -1)) for rank in ranks if rank >= MIDDLE]
        return cls(
            sample[min(max(low), last)] if low else None,
            sample[max(min(high), 0)] if high else None,
        )

    def keep(self, piece: Values) -> Values:
        """Return those of a piece of the values that belong to an end."""
        if self.low is None:
            wanted = piece >= self.high
        elif self.high is None:
            wanted = piece <= self.low
        else:
            wanted = (piece <= self.low) | (piece >= self.high)
        return np.asarray(piece[wanted])

    def percentile(self, kept: Values, size: int, rank: float) -> float | None:
        """Return one out of the ordered ends of `size` values, linear between neighboring ones.

        It is `None` where it lies between the ends.
        """
        place = (size - 1) * rank / 100
        floor = int(place)
        left_out = 0 if rank < MIDDLE else size - kept.size
        first, second = floor - left_out, min(floor + 1, size - 1) - left_out
        if first < 0 or second >= kept.size:
            return None
        near, far = kept[first], kept[second]
        if kept.size < size and (far > self.low if rank < MIDDLE else near < self.high):
            return None
        return float(near) * (1 - (place - floor)) + float(far) * (place - floor)


def _reach(rank: float, last: int, way: int) -> float:
    """Return how far the place of a rank may be from that in a sample, one way or the other."""
    share = rank / 100
    room = SIGMAS * math.sqrt((last + 1) * share * (1 - share)) + 2
    return share * last + way * room
