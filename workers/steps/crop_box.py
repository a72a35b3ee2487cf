"""Cut out a box."""

from typing import Annotated, Self

from pydantic import Field, model_validator
from typing_extensions import override

from service.errors.studies import NotAcceptedByModel
from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage, cut, demand_axes

Places = Annotated[
    tuple[Annotated[int, Field(ge=0, le=65535)], ...], Field(min_length=2, max_length=3)
]


@STEPS.register("crop_box")
class CropBox(Step):
    """Keep the cells from `start` to `stop`; what is outside is not explained.

    Parameters
    ----------
    start, stop
        First cell along each axis, and the one past the last.
    """

    start: Places
    stop: Places

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        """Require a box that has cells."""
        if len(self.start) != len(self.stop) or any(
            start >= stop for start, stop in zip(self.start, self.stop, strict=True)
        ):
            raise ValueError("start must lie before stop along each axis")
        return self

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        demand_axes(image, self.start)
        ends = zip(self.stop, image.values.shape[1:], strict=True)
        if any(stop > length for stop, length in ends):
            raise NotAcceptedByModel("The image is smaller than what the model looks at.")
        size = tuple(stop - start for start, stop in zip(self.start, self.stop, strict=True))
        return cut(image, self.start, size)
