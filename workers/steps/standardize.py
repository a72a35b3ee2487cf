"""Bring each channel to mean 0 and spread 1, measured on the image itself."""

from dataclasses import replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from workers.parcels import ImageFacts
from workers.steps.base import STEPS, Step, StepImage

LEAST: Final = 1e-8
"""Deviation of an image without any contrast, as nnU-Net has it."""

Mask = NDArray[np.bool_]


@STEPS.register("standardize")
class Standardize(Step):
    r"""Subtract the mean and divide by the standard deviation of each channel.

    .. math:: y = (x - \bar x) / \max(s, 10^{-8})

    Parameters
    ----------
    over
        ``all`` cells, or those of the body: where some channel is not zero, and
        the holes therein (``nonzero``). Cells that are not measured then stay
        as they are, which is zero. Padding is never measured.

    References
    ----------
    F. Isensee et al., "nnU-Net", Nature Methods 18, 2021: its normalization of
    all but CT, without and with a mask.
    """

    over: Literal["all", "nonzero"] = "all"

    @override
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        inside = np.ones(image.values.shape[1:], np.bool_)
        if self.over == "nonzero":
            inside = filled((image.values != 0).any(axis=0))
        if image.padding is not None:
            inside &= ~image.padding
        if not inside.any():
            return image
        values = np.array(image.values, np.float32)
        for channel in values:
            seen = channel[inside]
            mean, spread = seen.mean(dtype=np.float64), seen.std(dtype=np.float64)
            changed = inside if self.over == "nonzero" else np.s_[:]
            channel[changed] -= np.float32(mean)
            channel[changed] /= np.float32(max(spread, LEAST))
        return replace(image, values=values)


def filled(mask: Mask) -> Mask:
    """Return a mask with its holes: cells from which no way of faces leads out of the image."""
    outside = np.zeros(tuple(length + 2 for length in mask.shape), np.bool_)
    free = np.pad(~mask, 1, constant_values=True)
    for axis in range(mask.ndim):  # the rim lies outside
        ends = np.moveaxis(outside, axis, 0)
        ends[0] = ends[-1] = True
    while _spread(outside, free):
        pass
    return ~outside[(slice(1, -1),) * mask.ndim]


def _spread(outside: Mask, free: Mask) -> bool:
    """Lead what is outside on along each axis and back; return whether it grew."""
    before = int(outside.sum())
    for axis in range(outside.ndim):
        out, way = np.moveaxis(outside, axis, 0), np.moveaxis(free, axis, 0)
        for order in (range(1, len(out)), range(len(out) - 2, -1, -1)):
            step = -1 if order.step > 0 else 1
            for at in order:
                out[at] |= out[at + step] & way[at]
    return int(outside.sum()) > before
