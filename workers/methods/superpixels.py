r"""Superpixels: an image cut into segments that follow its own edges.

Segments are clusters of pixels that are near in place and in intensity, as
SLIC makes them: from the cells of a regular grid, by k-means in which a pixel
chooses among the clusters of its own cell and of those around it. The distance
is

.. math:: d^2 = \frac{|p - p_c|^2}{S^2} + \frac{|I - I_c|^2}{(\kappa \sigma)^2}

with the cell's edge `S` along each axis, the image's standard deviation
:math:`\sigma` and :math:`\kappa` = `CONTRAST`. Nothing is drawn at random, and
sums are of integers, so that the same image gives the same segments. A segment
need not be connected.

References
----------
Achanta et al. (2012). SLIC superpixels compared to state-of-the-art superpixel
methods. IEEE TPAMI 34 (11), section 3.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from service.errors.models import MethodError

CONTRAST: Final = 0.5
"""Intensity that weighs as much as a cell's edge, in standard deviations of the image."""

ROUNDS: Final = 5
"""Rounds of k-means; the paper finds 10 enough, and half do from a regular grid."""

LEVELS: Final = 1 << 16
"""Steps in which intensities are summed, so that no order of summing counts."""

PIXELS: Final = 1 << 16
"""Pixels that are clustered; of a larger image, its averages over blocks are."""


def segmented(image: Tensor, count: int) -> Tensor:
    """Cut an image ``(C, *spatial)`` into about `count` segments.

    Returns
    -------
    Tensor
        The segment of each pixel, int64, shape ``(*spatial,)``, on the image's
        device; numbers from 0 without gaps.

    Raises
    ------
    MethodError
        If there is but one segment, as in an image of one pixel.
    """
    sizes = tuple(image.shape[1:])
    labels = _clustered(_shrunk(image), grid_of(sizes, count))
    if labels.shape != sizes:
        wide = functional.interpolate(labels[None, None].double(), sizes, mode="nearest-exact")
        labels = wide[0, 0].long()
    found: tuple[Tensor, Tensor] = torch.unique(labels, return_inverse=True)
    if len(found[0]) == 1:
        raise MethodError("The image cannot be cut into segments.")
    return found[1]


def grid_of(sizes: Sequence[int], count: int) -> tuple[int, ...]:
    """Return how many cells along each axis make about `count` nearly cubic cells."""
    grid, left = [1] * len(sizes), float(count)
    # the shortest first: what it cannot take is left to the others
    order = sorted(range(len(sizes)), key=lambda axis: sizes[axis])
    for place, axis in enumerate(order):
        volume = math.prod(sizes[each] for each in order[place:])
        edge = (volume / left) ** (1 / (len(sizes) - place))
        grid[axis] = min(sizes[axis], max(1, round(sizes[axis] / edge)))
        left = max(1.0, left / grid[axis])
    return tuple(grid)


def _shrunk(image: Tensor) -> Tensor:
    """Return the image, averaged over blocks to at most about `PIXELS` pixels."""
    sizes = image.shape[1:]
    factor = (math.prod(sizes) / PIXELS) ** (1 / len(sizes))
    if factor <= 1:
        return image
    return functional.interpolate(image[None], [math.ceil(n / factor) for n in sizes], mode="area")[
        0
    ]


def _clustered(image: Tensor, grid: Sequence[int]) -> Tensor:
    """Return the cluster of each pixel of an image ``(C, *spatial)``, shape ``(*spatial,)``."""
    sizes = tuple(image.shape[1:])
    axes = [torch.arange(n, device=image.device) for n in sizes]
    home = [axis * count // len(axis) for axis, count in zip(axes, grid, strict=True)]
    index = torch.stack(torch.meshgrid(*home, indexing="ij")).flatten(1)
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    steps, weight = _steps(image)
    features = torch.cat([places, steps])
    weights = [count / size for count, size in zip(grid, sizes, strict=True)]
    scale = features.new_tensor([*weights, *[weight] * len(image)], dtype=torch.float32)[:, None]
    points, near = features * scale, [*_around(index, grid)]
    labels = near[0]
    for _ in range(ROUNDS):
        labels = _nearest(points, _centers(features, labels, math.prod(grid)) * scale, near)
    return labels.reshape(sizes)


def _steps(image: Tensor) -> tuple[Tensor, float]:
    """Return intensities in whole steps, int64 ``(C, pixels)``, and what one step weighs."""
    low, span = image.min(), (image.max() - image.min()).item()
    if not 0 < span < math.inf:  # flat, or with a pixel that is no number
        return torch.zeros_like(image, dtype=torch.int64).flatten(1), 1.0
    steps = ((image - low).double() * (LEVELS / span)).round().long()
    deviation = image.double().std(correction=0).item() / span * LEVELS
    return steps.flatten(1), 1 / (CONTRAST * deviation)


def _around(index: Tensor, grid: Sequence[int]) -> Iterator[Tensor]:
    """Iterate over the numbers of each pixel's own cell ``(axes, pixels)`` and of those around."""
    last = index.new_tensor(grid)[:, None] - 1
    for offset in product((0, -1, 1), repeat=len(grid)):
        cell = (index + index.new_tensor(offset)[:, None]).clamp(min=0).minimum(last)
        number = cell[0]
        for axis, count in enumerate(grid[1:], start=1):
            number = number * count + cell[axis]
        yield number


def _centers(features: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the mean feature of each cluster, shape ``(axes + C, count)``; NaN if empty."""
    sums = features.new_zeros(len(features), count).index_add_(1, labels, features)
    return sums.double() / torch.bincount(labels, minlength=count)


def _nearest(points: Tensor, centers: Tensor, near: Sequence[Tensor]) -> Tensor:
    """Return the nearest of the clusters around each point ``(axes + C, pixels)``."""
    rounded = centers.to(points.dtype)
    best = torch.full_like(points[0], math.inf)
    labels = torch.zeros_like(near[0])
    for numbers in near:
        distance = (points - rounded[:, numbers]).square_().sum(0)
        closer = distance < best  # an empty cluster, at NaN, is never closer
        best = torch.where(closer, distance, best)
        labels = torch.where(closer, numbers, labels)
    return labels
