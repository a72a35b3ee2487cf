"""Bring the values of interest between 0 and 1."""

from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage

CHUNK = 1 << 16  # small enough to stay in the cache
ROWS = 32
SAMPLE = 1 << 14
SIGMAS = 4.0


@STEPS.register("window")
class Window(Step):
    r"""Clip to a window and scale it to ``[0, 1]``; padding becomes 0.

    .. math:: y = \min(1, \max(0, (x - l) / (h - l)))

    Parameters
    ----------
    kind
        ``fixed`` takes `center` and `width` in modality units (for CT, HU);
        ``percentile`` takes the `low` and `high` percentiles of the pixels
        that are no padding, over all channels.
    center, width
        Of a fixed window: :math:`l, h = c \mp w / 2`.
    low, high
        Percentiles in ``[0, 100]``, linear between ranks.
    """

    kind: Literal["fixed", "percentile"]
    center: float | None = None
    width: float | None = Field(default=None, gt=0)
    low: float = Field(default=1.0, ge=0, le=100)
    high: float = Field(default=99.0, ge=0, le=100)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Require the parameters of the kind chosen, and no others."""
        fixed = self.kind == "fixed"
        given = (self.center is not None, self.width is not None)
        if given != (fixed, fixed):
            raise ValueError("a fixed window needs center and width; a percentile one has neither")
        if fixed and {"low", "high"} & self.model_fields_set:
            raise ValueError("a fixed window has no percentiles")
        if self.low >= self.high:
            raise ValueError("low must be below high")
        return self

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        low, high = self._ends(image)
        scale = 1.0 / max(high - low, 1e-6)
        values = np.empty(image.values.shape, np.float32)
        for row in range(0, len(values[0]), ROWS):  # in pieces that stay in the cache
            piece = values[:, row : row + ROWS]
            np.subtract(image.values[:, row : row + ROWS], np.float32(low), out=piece)
            piece *= np.float32(scale)
            np.clip(piece, 0.0, 1.0, out=piece)
        if image.padding is not None:
            values[:, image.padding] = 0.0
        return replace(image, values=values)

    def _ends(self, image: StepImage) -> tuple[float, float]:
        if self.center is not None and self.width is not None:
            return self.center - self.width / 2, self.center + self.width / 2
        seen = image.values.reshape(-1)
        if image.padding is not None and not image.padding.all():
            seen = image.values[:, ~image.padding].reshape(-1)
        return percentiles(seen, (self.low, self.high))


def percentiles(values: NDArray[np.float32], ranks: tuple[float, float]) -> tuple[float, float]:
    """Return two percentiles of finite `values`, shape ``(N,)``, exactly.

    A sample tells between which values each percentile must lie; one pass then
    counts what is below and takes out what lies between, which alone is put in
    order. Where a sample was misleading, everything is.
    """
    step = -(-values.size // SAMPLE) | 1  # odd, so that it runs through all columns
    sample = np.sort(values[::step])
    low, high = (_Between.of(sample, rank) for rank in ranks)
    for start in range(0, values.size, CHUNK):
        piece = values[start : start + CHUNK]
        low.take(piece)
        high.take(piece)
    found = [between.percentile() for between in (low, high)]
    if found[0] is None or found[1] is None:
        ends = np.percentile(values, ranks)
        return float(ends[0]), float(ends[1])
    return found[0], found[1]


@dataclass(slots=True)
class _Between:
    """The values among which a percentile lies, and how many are below and in all."""

    rank: float
    least: np.float32
    most: np.float32
    below: int = 0
    size: int = 0
    inside: list[NDArray[np.float32]] = field(default_factory=list)

    @classmethod
    def of(cls, sample: NDArray[np.float32], rank: float) -> Self:
        """Leave room of `SIGMAS` standard errors around the place in an ordered sample."""
        share, last = rank / 100, len(sample) - 1
        room = SIGMAS * np.sqrt(len(sample) * share * (1 - share)) + 2
        first, end = int(share * last - room), int(np.ceil(share * last + room))
        least = sample[first] if first >= 0 else np.float32(-np.inf)
        return cls(rank, least, sample[end] if end <= last else np.float32(np.inf))

    def take(self, piece: NDArray[np.float32]) -> None:
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
