"""Cut out the center."""

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import override

from service.domain.grid import Grid, scaling
from service.errors import NotAcceptedByModel
from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage

Side = Annotated[int, Field(ge=8, le=65535)]


@STEPS.register("crop")
class Crop(Step):
    """Keep the centered rectangle of `size`; what it leaves out is not explained.

    Parameters
    ----------
    size
        Rows and columns of the result; at most those of the image.
    """

    size: tuple[Side, Side]

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        rows, columns = image.values.shape[1:]
        if self.size[0] > rows or self.size[1] > columns:
            raise NotAcceptedByModel("The image is smaller than what the model looks at.")
        top, left = (rows - self.size[0]) // 2, (columns - self.size[1]) // 2
        part = np.s_[top : top + self.size[0], left : left + self.size[1]]
        grid = Grid(self.size, scaling((1.0, 1.0), (top, left))).within(image.grid)
        padding = None if image.padding is None else image.padding[part]
        return replace(image, values=image.values[:, *part], padding=padding, grid=grid)
