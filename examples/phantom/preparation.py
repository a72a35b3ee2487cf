"""From stored values to the model's input, as ``models/chest-phantom/model.yaml`` declares it.

Written a second time here, apart from the service's own steps, so that the
trainer does not inherit a fault of theirs; a test holds the two equal.
"""

import numpy as np
from numpy.typing import NDArray

from examples.phantom.canvas import Array, Mask
from examples.phantom.chest import MAXIMUM

SIDE = 128
"""Rows and columns of the model's input."""

PERCENTILES = (1.0, 99.0)
MEAN, STD = 0.5, 0.3

BASELINE = -MEAN / STD
"""A black pixel in model-input units."""


def prepare(stored: NDArray[np.uint16], photometric: str = "MONOCHROME2") -> Array:
    """Return the model's input of one radiograph, shape ``(SIDE, SIDE)``."""
    if photometric == "MONOCHROME1":
        stored = (MAXIMUM - stored).astype(np.uint16)
    low, high = (float(each) for each in np.percentile(stored, PERCENTILES))
    window = np.clip((stored.astype(np.float32) - low) / (high - low), 0, 1)
    return (shrink(window) - MEAN) / STD


def shrink(image: Array) -> Array:
    """Average an image down to ``(SIDE, SIDE)`` by exact area, whatever its shape."""
    rows, columns = image.shape
    small: Array = _areas(rows) @ image @ _areas(columns).T
    return small


def shrink_mask(mask: Mask) -> Mask:
    """Return the input pixels that lie in the mask by half or more."""
    small: Mask = shrink(mask.astype(np.float32)) >= 0.5
    return small


def _areas(length: int) -> Array:
    """Return the share of each of `length` pixels in each of `SIDE` cells; rows sum to 1."""
    edges = np.arange(SIDE + 1) * length / SIDE
    pixel = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    areas: Array = (np.clip(overlap, 0, None) * SIDE / length).astype(np.float32)
    return areas
