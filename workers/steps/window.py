"""Bring the values of interest between 0 and 1."""

from dataclasses import replace
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator
from typing_extensions import override

from workers.parcels import ImageFacts
from workers.percentiles import percentiles
from workers.steps.base import STEPS, Step, StepImage

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

    takes_integers = True

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
            piece[:] = image.values[:, row : row + ROWS]
            piece -= np.float32(low)
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
        low, high = percentiles(seen, (self.low, self.high))
        return low, high
