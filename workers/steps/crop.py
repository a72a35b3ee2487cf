"""Cut out the center."""

from typing import Annotated

from pydantic import Field
from typing_extensions import override

from service.errors.studies import NotAcceptedByModel
from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage, cut, demand_axes

Side = Annotated[int, Field(ge=8, le=65535)]


@STEPS.register("crop")
class Crop(Step):
    """Keep the centered box of `size`; what it leaves out is not explained.

    Parameters
    ----------
    size
        Cells of the result along each axis; at most those of the image.
    """

    size: tuple[Side, Side] | tuple[Side, Side, Side]

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        demand_axes(image, self.size)
        spare = [
            length - kept for length, kept in zip(image.values.shape[1:], self.size, strict=True)
        ]
        if min(spare) < 0:
            raise NotAcceptedByModel("The image is smaller than what the model looks at.")
        return cut(image, [each // 2 for each in spare], self.size)
