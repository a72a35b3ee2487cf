"""Exact percentiles of many values, by a sample and one pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

CHUNK: Final = 1 << 16
"""Values looked at together; they stay in the processor's cache."""

SAMPLE: Final = 1 << 14
SIGMAS: Final = 4.0

Values = NDArray[Any]


def percentiles(
    values: Values, ranks: Sequence[float], of: Callable[[Values], Values] = lambda piece: piece
) -> tuple[float, ...]:
    """Return percentiles of finite `values`, real or whole, shape ``(N,)``, exactly.

    With `of`, of what it makes of them, piece by piece: no copy of them all is made.

    A sample tells between which values each percentile must lie; one pass then
    counts what is below and takes out what lies between, which alone is put in
    order. Where a sample was misleading, everything is.
    """
    step = -(-values.size // SAMPLE) | 1  # odd, so that it runs through all columns
    sample = np.sort(of(values[::step]))
    wanted = [_Between.of(sample, rank) for rank in ranks]
    for start in range(0, values.size, CHUNK):
        piece = of(values[start : start + CHUNK])
        for each in wanted:
            each.take(piece)
    found = tuple(each.percentile() for each in wanted)
    sure = tuple(each for each in found if each is not None)
    return sure if len(sure) == len(found) else tuple(map(float, np.percentile(of(values), ranks)))


@dataclass(slots=True)
class _Between:
    """The values among which a percentile lies, and how many are below and in all."""

    rank: float
    least: Any
    most: Any
    below: int = 0
    size: int = 0
    inside: list[Values] = field(default_factory=list)

    @classmethod
    def of(cls, sample: Values, rank: float) -> Self:
        """Leave room of `SIGMAS` standard errors around the place in an ordered sample."""
        share, last = rank / 100, len(sample) - 1
        room = SIGMAS * np.sqrt(len(sample) * share * (1 - share)) + 2
        first, end = int(share * last - room), int(np.ceil(share * last + room))
        least = sample[first] if first >= 0 else np.float32(-np.inf)
        return cls(rank, least, sample[end] if end <= last else np.float32(np.inf))

    def take(self, piece: Values) -> None:
        """Count a piece of the values and keep those between."""
        between = piece >= self.least
        self.size += piece.size
        self.below += piece.size - int(np.count_nonzero(between))
        between &= piece <= self.most
        self.inside.append(piece[between])

    def percentile(self) -> float | None:
        """Return it, linear between neighboring values; `None` where it lies elsewhere."""
        inside = np.concatenate(self.inside)
        place = (self.size - 1) * self.rank / 100
        floor = int(place)
        first, second = floor - self.below, min(floor + 1, self.size - 1) - self.below
        if first < 0 or second >= inside.size:
            return None
        inside.partition((first, second))
        weight = place - floor
        return float(inside[first]) * (1 - weight) + float(inside[second]) * weight
