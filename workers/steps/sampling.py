"""Resampling along the axes of an image: what the steps that change its size share."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
PIECE = 1 << 23
"""Cells that are worked on at a time; most images are one piece."""

Interpolation = Literal["linear", "nearest"]


def resampled(
    values: Values, size: tuple[int, ...], *, antialias: bool, interpolation: Interpolation
) -> Values:
    """Resample every channel to `size`; the outer edges coincide.

    Parameters
    ----------
    values
        Shape ``(C, *spatial)``.
    size
        Cells of the result along each spatial axis.
    antialias
        Average by exact area along an axis that shrinks.
    interpolation
        Between samples of an axis that grows (or of any, without `antialias`).
    """
    return np.stack([_channel(each, size, antialias, interpolation) for each in values])


def _channel(
    channel: Values, size: tuple[int, ...], antialias: bool, interpolation: Interpolation
) -> Values:
    """Resample axis after axis; of a large volume piece by piece, so that no copy is large."""
    for axis, to in enumerate(size):
        if channel.shape[axis] == to:
            continue
        across = 1 if axis == 0 else 0
        step = max(1, PIECE * channel.shape[across] // channel.size)
        cuts = range(step, channel.shape[across], step)
        if not cuts:
            channel = _along(channel, axis, to, antialias, interpolation)
            continue
        result = np.empty((*channel.shape[:axis], to, *channel.shape[axis + 1 :]), np.float32)
        pieces = zip(np.split(channel, cuts, across), np.split(result, cuts, across), strict=True)
        for piece, part in pieces:
            part[:] = _along(piece, axis, to, antialias, interpolation)
        channel = result
    return channel


def _along(
    channel: Values, axis: int, to: int, antialias: bool, interpolation: Interpolation
) -> Values:
    """Resample one axis; it is brought to the front, where its cells are contiguous."""
    front = np.moveaxis(channel, axis, 0)
    rows = np.ascontiguousarray(front).reshape(len(front), -1)
    rows = _along_rows(rows, to, antialias, interpolation)
    return np.moveaxis(rows.reshape(to, *front.shape[1:]), 0, axis)


def _along_rows(rows: Values, to: int, antialias: bool, interpolation: Interpolation) -> Values:
    source = len(rows)
    if antialias and to < source:
        return average_rows(rows, to)
    at = np.clip((np.arange(to) + 0.5) * source / to - 0.5, 0, source - 1)
    if interpolation == "nearest":
        at = np.floor(at + 0.5)
    return between_rows(rows, at)


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
