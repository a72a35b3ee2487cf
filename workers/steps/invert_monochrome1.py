"""Make white mean much for every image."""

from dataclasses import replace

import numpy as np
from typing_extensions import override

from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage

INVERTED = "MONOCHROME1"


@STEPS.register("invert_monochrome1")
class InvertMonochrome1(Step):
    r"""Mirror MONOCHROME1 images within the range their values can take.

    .. math:: y = v_{\min} + v_{\max} - x

    The range is that of the stored bits after the modality transform, not
    the image's own extremes: two exposures of one scene stay comparable.
    Other images pass unchanged.
    """

    takes_integers = True

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        if facts.photometric_interpretation != INVERTED:
            return image
        ends = np.float32(facts.value_minimum + facts.value_maximum)
        return replace(image, values=ends - image.values)
