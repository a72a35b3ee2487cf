"""Center and scale to what the network was trained on."""

from dataclasses import replace
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator
from typing_extensions import override

from service.errors.studies import NotAcceptedByModel
from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage

Channels = Annotated[tuple[float, ...], Field(min_length=1, max_length=16)]


@STEPS.register("normalize")
class Normalize(Step):
    r"""Subtract `mean` and divide by `std`, one value a channel or one for all.

    .. math:: y = (x - \mu) / \sigma

    Parameters
    ----------
    mean, std
        In the units of this step's input; several values for a gray image
        repeat it into that many channels.
    """

    mean: Channels
    std: Channels

    @model_validator(mode="after")
    def _fit(self) -> Self:
        """Require as many deviations as means, all positive."""
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError("mean and std need the same length, and std must be positive")
        return self

    @override
    def channels(self, before: int) -> int | None:
        several = {before, len(self.mean)} - {1}  # one is repeated for the others
        return None if len(several) > 1 else max(several, default=1)

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        if self.channels(len(image.values)) is None:
            raise NotAcceptedByModel(
                "The model takes another number of channels than the image has."
            )
        apart = (-1, *(1,) * (image.values.ndim - 1))
        mean = np.array(self.mean, np.float32).reshape(apart)
        std = np.array(self.std, np.float32).reshape(apart)
        return replace(image, values=np.asarray((image.values - mean) / std, np.float32))
