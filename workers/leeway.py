"""Time for large volumes: whatever handles a whole one at a go may take longer, by its size."""

import math
from collections.abc import Sequence
from typing import Final

PER_VOXEL: Final = 2e-6
"""Seconds for each voxel of the source: thirty times what nnU-Net's steps took of one core, which
resampled 512 x 512 x 300 voxels to 1.6 times as many cells."""

BATCHES: Final = 10.0
"""How many times as long as a row took when its model was loaded a batch may take, at most:
a machine that serves others meanwhile is that much slower."""


def leeway(shape: Sequence[int]) -> float:
    """Return the seconds that handling an image or volume of a shape may take beside its limit."""
    return PER_VOXEL * math.prod(shape)
