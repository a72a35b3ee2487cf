"""Make small images as large as the model needs."""

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import override

from service.domain.grid import Grid, scaling
from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage, demand_axes

Side = Annotated[int, Field(ge=8, le=4096)]


@STEPS.register("pad")
class Pad(Step):
    """Add cells around an image until it has `size`; an axis that is longer stays.

    What is added counts as padding: it was never measured.

    Parameters
    ----------
    size
        Least cells of the result along each axis; an odd one is added at the end.
    fill
        Value of what is added, in the units of this step's input.
    """

    size: tuple[Side, Side] | tuple[Side, Side, Side]
    fill: float = 0.0

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        demand_axes(image, self.size)
        shape = image.values.shape[1:]
        lacking = [max(0, to - length) for to, length in zip(self.size, shape, strict=True)]
        if not any(lacking):
            return image
        widths = [(each // 2, each - each // 2) for each in lacking]
        padding = np.zeros(shape, np.bool_) if image.padding is None else image.padding
        values = np.pad(image.values, [(0, 0), *widths], constant_values=np.float32(self.fill))
        moved = scaling(np.ones(len(shape)), [-before for before, _ in widths])
        return replace(
            image,
            values=values,
            padding=np.pad(padding, widths, constant_values=True),
            grid=Grid(values.shape[1:], moved).within(image.grid),
        )
