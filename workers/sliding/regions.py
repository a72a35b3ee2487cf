r"""A target's region under windows: what each window adds to the score.

The score is that of the blended logits, :math:`s = \sum_u m(u) \sum_w n_w(u)
z_w(u)`, with :math:`m` the region's weights and :math:`n_w` the shares of the
windows, which add up to 1. So :math:`s = \sum_w s_w` with :math:`s_w` of window
:math:`w` alone, and its gradient is the sum of the windows' own, taken one after
the other. A margin over the highest other class is linear too once it is known
which class that is at each cell of the blend.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from service.errors.models import UnservablePass
from workers.device import sent
from workers.passes import Scalar
from workers.rows import Box
from workers.targets.scalars import RegionLogits
from workers.tiling import Tiling, overlap, within


class Region:
    """One target of a segmentation under a tiling.

    Raises
    ------
    UnservablePass
        If the target is no class over a region of the image.
    """

    def __init__(self, scalar: Scalar, tiling: Tiling) -> None:
        if not isinstance(scalar, RegionLogits) or scalar.mask.shape != tiling.shape:
            raise UnservablePass("Windows serve classes over regions of the image alone.")
        self.scalar = scalar
        self.tiling = tiling
        self.mask = tiling.padded(torch.from_numpy(scalar.mask))
        self.windows = tiling.meeting(self.mask)
        """Those that hold a cell of the region; the others add nothing to the score."""

    @property
    def of_others(self) -> bool:
        """Whether the score depends on which other class is highest."""
        return self.scalar.against == "others"

    def part(self, window: int, rivals: Tensor | None = None) -> "Share":
        """Return what one window adds to the score; `rivals` as of `Region.rivals`."""
        return Share(self, window, rivals)

    def total(self, parts: Tensor) -> Tensor:
        """Return the score of what its windows add to it, shape ``(windows,)``."""
        return parts.sum()

    @cached_property
    def cells(self) -> int:
        """Cells of the region."""
        return int(self.mask.sum())

    @cached_property
    def box(self) -> Box:
        """The least box around the region, in the padded image."""
        mask, axes = self.mask.numpy(), range(self.mask.dim())
        held = [
            np.flatnonzero(mask.any(axis=tuple(each for each in axes if each != axis)))
            for axis in axes
        ]
        return tuple(slice(int(at[0]), int(at[-1]) + 1) for at in held)

    def weights(self, window: int, *, blended: bool) -> Tensor:
        """Return how much each cell of a window counts, shape `size`."""
        box = self.tiling.boxes[window]
        weights = self.mask[box].float()
        if blended:
            weights *= self.tiling.share(window)
        return weights / self.cells if self.scalar.mean else weights

    def rivals(self, blended: Tensor, box: Box) -> Tensor | None:
        """Return the highest other class at each cell of `self.box`; `None` where none counts.

        Parameters
        ----------
        blended
            Logits on `box`, which holds the region, shape ``(classes, *box)``.
        """
        if not self.of_others:
            return None
        logits = blended[:, *within(self.box, box)].clone()
        logits[self.scalar.index] = -torch.inf
        return logits.argmax(0)

    def score(self, blended: Tensor, box: Box) -> Tensor:
        """Return the score of blended logits, as of `rivals`; float64, shape ``()``."""
        logits, scalar = blended[:, *within(self.box, box)].double(), self.scalar
        own, rivals = logits[scalar.index], self.rivals(blended, box)
        if rivals is not None:
            own = own - logits.gather(0, rivals[None])[0]
        elif isinstance(scalar.against, float):
            own = own - scalar.against
        total = (own * sent(self.mask[self.box], own.device, own.dtype)).sum()
        return total / self.cells if scalar.mean else total


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """What one window adds to a score: linear in its logits; equal only to itself.

    Nothing of a window's size is held: many wait for their turns together.
    """

    region: Region
    window: int
    rivals: Tensor | None
    """As of `Region.rivals`."""

    blended: bool = True
    """Whether the window counts by its share in the blend; else its own answer is told, as if
    there were no other."""

    @property
    def weights(self) -> None:
        """It weighs cells, not outputs."""
        return

    def __call__(self, outputs: Tensor) -> Tensor:
        """Reduce ``(rows, classes, *size)`` to ``(rows,)``."""
        scalar, box = self.region.scalar, self.region.tiling.boxes[self.window]
        own = outputs[:, scalar.index]
        if self.rivals is not None:
            rivals = sent(_cut(self.rivals, self.region.box, box), own.device, torch.int64)
            own = own - outputs.gather(1, rivals.expand(own.shape)[:, None])[:, 0]
        elif isinstance(scalar.against, float):
            own = own - scalar.against
        weights = self.region.weights(self.window, blended=self.blended)
        return (own * sent(weights, own.device, own.dtype)).flatten(1).sum(1)


def _cut(values: Tensor, of: Box, box: Box) -> Tensor:
    """Return `values`, which lie on the box `of`, on another box; 0 where they say nothing."""
    made = values.new_zeros([each.stop - each.start for each in box])
    both = overlap(of, box)
    if both is not None:
        made[within(both, box)] = values[within(both, of)]
    return made
