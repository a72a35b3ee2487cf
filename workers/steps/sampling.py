"""Resampling along the axes of an image: what the steps that change its size share."""

import math
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
PIECE = 1 << 23
"""Cells that are worked on at a time; most images are one piece."""

TOGETHER: Final = 4
"""Rows of a result that are averaged together."""

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
    """Resample one axis; it is brought to the front."""
    front = np.moveaxis(channel, axis, 0)
    rows = front.reshape(len(front), -1)
    rows = _along_rows(rows, to, antialias, interpolation)
    return np.moveaxis(rows.reshape(to, *front.shape[1:]), 0, axis)


def _along_rows(rows: Values, to: int, antialias: bool, interpolation: Interpolation) -> Values:
    source = len(rows)
    if antialias and to < source:
        return average_rows(rows, to)
    return between_rows(np.ascontiguousarray(rows), _samples(source, to, interpolation))


def first_shown(
    source: tuple[int, ...], size: tuple[int, ...], *, antialias: bool, interpolation: Interpolation
) -> NDArray[np.float64]:
    """Return where in the image that which the first cell shows lies, along each axis.

    It is its center, but of samples that are the nearest ones: these lie beside the cells'
    centers. How far differs from cell to cell unless an axis shrinks by a whole factor, and is
    then taken midway.
    """
    first = []
    for length, to in zip(source, size, strict=True):
        centers = _centers(length, to)
        aside = np.zeros(1)
        if interpolation == "nearest" and not (antialias and to < length):
            aside = _samples(length, to, interpolation) - centers
        first.append(centers[0] + (aside.min() + aside.max()) / 2)
    return np.array(first)


def _centers(source: int, to: int) -> NDArray[np.float64]:
    """Return where the centers of cells lie in the row that they share evenly."""
    return np.asarray((np.arange(to) + 0.5) * source / to - 0.5)


def _samples(source: int, to: int, interpolation: Interpolation) -> NDArray[np.float64]:
    """Return where the cells are sampled."""
    at = np.clip(_centers(source, to), 0, source - 1)
    return np.floor(at + 0.5) if interpolation == "nearest" else at


def between_rows(channel: Values, at: NDArray[np.float64]) -> Values:
    """Interpolate linearly at row positions `at`, shape ``(N,)``, within the image."""
    above = at.astype(int)
    below = np.minimum(above + 1, len(channel) - 1)
    share = (at - above).astype(np.float32)[:, None]
    return np.asarray(channel[above] * (1 - share) + channel[below] * share)


def average_rows(channel: Values, to: int) -> Values:
    """Average rows down to `to` by exact area, one pass over the image.

    A few rows of the result are a product of those that they cover with their shares.
    """
    source = len(channel)
    edges = np.arange(to + 1) * source / to
    averages = np.empty((to, channel.shape[1]), np.float32)
    for start in range(0, to, TOGETHER):
        ends = edges[start : start + TOGETHER + 1, None]
        covered = np.arange(int(ends[0, 0]), math.ceil(ends[-1, 0]))
        shares = np.minimum(ends[1:], covered + 1) - np.maximum(ends[:-1], covered)
        weights = (np.maximum(shares, 0) * (to / source)).astype(np.float32)
        into = averages[start : start + TOGETHER]
        np.matmul(weights, channel[covered[0] : covered[-1] + 1], out=into)
    return averages
