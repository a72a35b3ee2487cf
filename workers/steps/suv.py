"""PET activity to standardized uptake."""

from dataclasses import replace

import numpy as np
from typing_extensions import override

from service.errors.studies import NotAcceptedByModel
from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage


@STEPS.register("suv")
class Suv(Step):
    """Scale PET activity, Bq/mL, to standardized uptake by body weight, g/mL.

    The factor is that of `workers.pixels.uptake.uptake_scale`. An image that
    does not say all that it needs is refused; nothing is assumed.
    """

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        if facts.uptake_scale is None:
            raise NotAcceptedByModel(
                "The model needs standardized uptake, and the image does not say all that it takes:"
                " corrections, dose, half-life, times of injection and scan, and weight; or they"
                " cannot be in Bq, s and kg. Have them corrected where the scan was made."
            )
        return replace(image, values=image.values * np.float32(facts.uptake_scale))
