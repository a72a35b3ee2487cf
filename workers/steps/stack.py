"""Show one image through several windows at once."""

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import override

from service.errors.studies import NotAcceptedByModel
from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage

Width = Annotated[float, Field(gt=0)]


@STEPS.register("stack")
class Stack(Step):
    r"""Clip a gray image to several windows; each gives a channel in ``[0, 1]``.

    .. math:: y_k = \min(1, \max(0, (x - c_k) / w_k + 1/2))

    Padding becomes 0 in every channel.

    Parameters
    ----------
    windows
        Center and width of each channel, in modality units.
    """

    windows: Annotated[tuple[tuple[float, Width], ...], Field(min_length=1, max_length=16)]

    @override
    def channels(self, before: int) -> int | None:
        return len(self.windows) if before == 1 else None

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        if self.channels(len(image.values)) is None:
            raise NotAcceptedByModel("The model takes a gray image, and this one has color.")
        values = np.empty((len(self.windows), *image.values.shape[1:]), np.float32)
        for channel, (center, width) in zip(values, self.windows, strict=True):
            np.subtract(image.values[0], np.float32(center - width / 2), out=channel)
            np.multiply(channel, np.float32(1 / width), out=channel)
            np.clip(channel, 0.0, 1.0, out=channel)
        if image.padding is not None:
            values[:, image.padding] = 0.0
        return replace(image, values=values)
