"""Bring the values of interest between 0 and 1."""

from dataclasses import replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import override

from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage

CHUNK = 1 << 15  # small enough for the index to stay in the cache
ROWS = 32


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
        low, high = self._ends(image, facts)
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

    def _ends(self, image: StepImage, facts: ImageFacts) -> tuple[float, float]:
        if self.center is not None and self.width is not None:
            return self.center - self.width / 2, self.center + self.width / 2
        seen = image.values.reshape(-1)
        if image.padding is not None and not image.padding.all():
            seen = image.values[:, ~image.padding].reshape(-1)
        return percentiles(seen, (self.low, self.high), facts)


def percentiles(
    values: NDArray[np.float32], ranks: tuple[float, float], facts: ImageFacts
) -> tuple[float, float]:
    """Return two percentiles of `values`, shape ``(N,)``, exactly.

    Where the values are whole numbers in a range of at most 65536, one count
    of each tells every rank: ten times faster than sorting.
    """
    low, high = facts.value_minimum, facts.value_maximum
    if (
        high - low < (1 << 16)
        and low.is_integer()
        and (counts := _count(values, low, high)) is not None
    ):
        return _ranked(counts, ranks[0], low), _ranked(counts, ranks[1], low)
    ends = np.percentile(values, ranks)
    return float(ends[0]), float(ends[1])


def _count(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.int64] | None:
    """Count each whole value from `low` up; `None` when some are not whole or lie outside."""
    bins = int(high - low) + 1
    counts = np.zeros(bins, np.int64)
    for start in range(0, values.size, CHUNK):
        offsets = values[start : start + CHUNK] - np.float32(low)
        index = offsets.astype(np.intp)
        if offsets.min() < 0 or (index.astype(np.float32) != offsets).any():
            return None
        found = np.bincount(index, minlength=bins)
        if len(found) > bins:
            return None
        counts += found
    return counts


def _ranked(counts: NDArray[np.int64], percentile: float, low: float) -> float:
    """Return a percentile from counts, linear between neighboring ranks."""
    below = np.cumsum(counts)
    rank = (float(below[-1]) - 1.0) * percentile / 100.0
    floor = int(np.floor(rank))
    first, second = np.searchsorted(below, (floor, floor + 1), side="right")
    last = len(counts) - 1
    weight = rank - floor
    return low + float(first) * (1 - weight) + float(min(second, last)) * weight
