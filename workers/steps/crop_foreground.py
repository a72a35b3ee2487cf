"""Cut away what lies around the body."""

import numpy as np
from pydantic import Field
from typing_extensions import override

from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage, cut


@STEPS.register("crop_foreground")
class CropForeground(Step):
    """Keep the least box that holds every value over a threshold, or every one but zero.

    An image without any such value is kept whole.

    Parameters
    ----------
    threshold
        In the units of this step's input; padding is never foreground. If not
        given, all but zero is foreground: nnU-Net's crop.
    margin
        Cells kept around the box, as far as there are some.
    """

    threshold: float | None = None
    margin: int = Field(default=0, ge=0, le=1024)

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        threshold = self.threshold
        front = image.values != 0 if threshold is None else image.values > threshold
        inside = np.asarray(front.any(axis=0))
        if image.padding is not None:
            inside &= ~image.padding
        if not inside.any():
            return image
        starts, size = [], []
        for axis, length in enumerate(inside.shape):
            slices = np.moveaxis(inside, axis, 0).reshape(length, -1)
            held = np.flatnonzero(slices.any(axis=1))
            start = max(0, int(held[0]) - self.margin)
            starts.append(start)
            size.append(min(length, int(held[-1]) + 1 + self.margin) - start)
        return cut(image, starts, tuple(size))
