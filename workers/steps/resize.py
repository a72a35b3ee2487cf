"""Bring the image to the model's size."""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from service.domain.grid import Grid, scaling
from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage, demand_axes
from workers.steps.sampling import Interpolation, Values, first_shown, resampled

Side = Annotated[int, Field(ge=8, le=4096)]
Size = tuple[Side, Side] | tuple[Side | None, Side, Side]


@STEPS.register("resize")
class Resize(Step):
    """Resample to `size`, cell centers in line: the outer edges coincide.

    Parameters
    ----------
    size
        Cells of the result along each axis: rows and columns, or those of a volume, of
        which null in front leaves the slices as they are.
    aspect
        ``stretch`` fills the size; ``letterbox`` keeps the shape of things,
        centers the image and fills the rest with `fill`.
    antialias
        Average by exact area along an axis that shrinks, so that nothing
        between the samples is lost; off, only neighbors are interpolated.
    interpolation
        Between samples of an axis that grows (or of any, without antialias).
    fill
        Value beside a letterboxed image, in the units of this step's input.
    """

    size: Size
    aspect: Literal["stretch", "letterbox"] = "stretch"
    antialias: bool = True
    interpolation: Interpolation = "linear"
    fill: float = 0.0

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        demand_axes(image, self.size)
        source = image.values.shape[1:]
        size = tuple(
            whole if to is None else to for to, whole in zip(self.size, source, strict=True)
        )
        inner = self._inner(source, size)
        before = [(total - part) // 2 for total, part in zip(size, inner, strict=True)]
        values = self._place(self._resample(image.values, inner), before, size)
        scale = np.array(source) / np.array(inner)
        first = first_shown(
            source, inner, antialias=self.antialias, interpolation=self.interpolation
        )
        offset = first - scale * np.array(before)
        grid = Grid(size, scaling(scale, offset)).within(image.grid)
        padding = None
        if image.padding is not None:  # a pixel is padding when half of its area or more is
            share = self._resample(image.padding[None].astype(np.float32), inner)
            padding = self._place(share, before, size)[0] >= 0.5  # noqa: PLR2004 - half
        return replace(image, values=values, padding=padding, grid=grid)

    def _inner(self, source: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the part of the result that the image fills."""
        if self.aspect == "stretch":
            return size
        pairs = list(zip(self.size, size, source, strict=True))
        factor = min(to / length for given, to, length in pairs if given is not None)
        return tuple(
            to if given is None else min(max(1, round(length * factor)), to)
            for given, to, length in pairs
        )

    def _place(self, values: Values, before: list[int], size: tuple[int, ...]) -> Values:
        inner = values.shape[1:]
        if inner == size:
            return values
        placed = np.full((len(values), *size), np.float32(self.fill))
        ends = zip(before, inner, strict=True)
        placed[:, *(slice(start, start + length) for start, length in ends)] = values
        return placed

    def _resample(self, values: Values, to: tuple[int, ...]) -> Values:
        return resampled(values, to, antialias=self.antialias, interpolation=self.interpolation)
