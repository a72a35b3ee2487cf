"""Bring a volume's voxels to the model's spacing."""

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import override

from service.domain.grid import Grid, scaling
from service.errors.studies import NotAcceptedByModel
from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage
from workers.steps.sampling import Interpolation, first_shown, resampled

Millimeters = Annotated[float, Field(gt=0, le=100)]
LARGEST = 1 << 28
"""Voxels of the result at most."""


@STEPS.register("resample")
class Resample(Step):
    """Resample a volume along its own axes until cells are `spacing` apart.

    The outer edges coincide, so the number of cells is rounded and the true
    spacing is off by that; the grid holds the true one. A sheared volume stays
    sheared: its axes are kept.

    Parameters
    ----------
    spacing
        Distance of neighboring cells along each axis, in mm.
    antialias
        Average by exact area along an axis that shrinks, so that nothing
        between the samples is lost; off, only neighbors are interpolated.
    interpolation
        Between samples of an axis that grows (or of any, without antialias).
    """

    spacing: tuple[Millimeters, Millimeters, Millimeters]
    antialias: bool = True
    interpolation: Interpolation = "linear"

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        apart = np.linalg.norm(image.axes, axis=0)
        source = np.array(image.values.shape[1:])
        size = tuple(int(n) for n in np.maximum(1, np.rint(source * apart / self.spacing)))
        if np.prod(size, dtype=float) > LARGEST:
            raise NotAcceptedByModel("The volume is too large for the spacing of the model.")
        scale = source / np.array(size)
        first = first_shown(
            image.values.shape[1:], size, antialias=self.antialias, interpolation=self.interpolation
        )
        padding = image.padding
        if padding is not None:
            share = self._resample(padding[None].astype(np.float32), size)
            padding = share[0] >= 0.5  # noqa: PLR2004 - half of a cell or more
        return replace(
            image,
            values=self._resample(image.values, size),
            padding=padding,
            grid=Grid(size, scaling(scale, first)).within(image.grid),
        )

    def _resample(
        self, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], size: tuple[int, ...]
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return resampled(values, size, antialias=self.antialias, interpolation=self.interpolation)
