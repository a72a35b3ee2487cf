"""Bring the image to the model's size."""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from service.domain.grid import Grid, scaling
from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage

Side = Annotated[int, Field(ge=8, le=4096)]
Values = NDArray[np.float32]


@STEPS.register("resize")
class Resize(Step):
    """Resample to `size`, cell centers in line: the outer edges coincide.

    Parameters
    ----------
    size
        Rows and columns of the result.
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

    size: tuple[Side, Side]
    aspect: Literal["stretch", "letterbox"] = "stretch"
    antialias: bool = True
    interpolation: Literal["linear", "nearest"] = "linear"
    fill: float = 0.0

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        source = image.values.shape[1:]
        inner = self._inner(source)
        resampled = self._resample(image.values, inner)
        before = [(total - part) // 2 for total, part in zip(self.size, inner, strict=True)]
        values = self._place(resampled, before)
        scale = np.array(source) / np.array(inner)
        offset = (scale - 1) / 2 - scale * np.array(before)
        grid = Grid(self.size, scaling(scale, offset)).within(image.grid)
        return replace(image, values=values, padding=self._padding(image, inner, before), grid=grid)

    def _inner(self, source: tuple[int, ...]) -> tuple[int, int]:
        """Return the part of the result that the image fills."""
        if self.aspect == "stretch":
            return self.size
        factor = min(self.size[0] / source[0], self.size[1] / source[1])
        rows, columns = (max(1, round(length * factor)) for length in source)
        return min(rows, self.size[0]), min(columns, self.size[1])

    def _place(self, values: Values, before: list[int]) -> Values:
        inner = values.shape[1:]
        if inner == self.size:
            return values
        placed = np.full((len(values), *self.size), np.float32(self.fill))
        placed[:, before[0] : before[0] + inner[0], before[1] : before[1] + inner[1]] = values
        return placed

    def _padding(
        self, image: StepImage, inner: tuple[int, int], before: list[int]
    ) -> NDArray[np.bool_] | None:
        """Call a pixel padding when half of its area or more is."""
        if image.padding is None:
            return None
        share = self._resample(image.padding[None].astype(np.float32), inner)
        half: NDArray[np.bool_] = self._place(share, before)[0] >= 0.5  # noqa: PLR2004 - half
        return half

    def _resample(self, values: Values, to: tuple[int, int]) -> Values:
        """Resample every channel, rows first: those are contiguous."""
        tall = (self._along_rows(channel, to[0]) for channel in values)
        wide = (self._along_rows(np.ascontiguousarray(channel.T), to[1]) for channel in tall)
        return np.stack([channel.T for channel in wide])

    def _along_rows(self, channel: Values, to: int) -> Values:
        source = len(channel)
        if source == to:
            return channel
        if self.antialias and to < source:
            return average_rows(channel, to)
        at = np.clip((np.arange(to) + 0.5) * source / to - 0.5, 0, source - 1)
        if self.interpolation == "nearest":
            at = np.floor(at + 0.5)
        return between_rows(channel, at)


def between_rows(channel: Values, at: NDArray[np.float64]) -> Values:
    """Interpolate linearly at row positions `at`, shape ``(N,)``, within the image."""
    above = at.astype(int)
    below = np.minimum(above + 1, len(channel) - 1)
    share = (at - above).astype(np.float32)[:, None]
    return np.asarray(channel[above] * (1 - share) + channel[below] * share)


def average_rows(channel: Values, to: int) -> Values:
    """Average rows down to `to` by exact area, one pass over the image.

    Whole rows of a cell are summed as they lie; the two rows that a cell
    shares with its neighbors are added by their share.
    """
    source = len(channel)
    edges = np.arange(to + 1) * source / to
    first, last = np.ceil(edges[:-1]).astype(int), np.floor(edges[1:]).astype(int)
    sums = np.stack([channel[low:high].sum(0) for low, high in zip(first, last, strict=True)])
    above, below = first - edges[:-1], edges[1:] - last
    sums += above[:, None].astype(np.float32) * channel[np.maximum(first - 1, 0)]
    sums += below[:, None].astype(np.float32) * channel[np.minimum(last, source - 1)]
    sums *= np.float32(to / source)
    return sums
