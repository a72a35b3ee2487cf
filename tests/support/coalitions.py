"""Games among segments, played out in full: the slow truth for methods that sample them."""

import math
from itertools import combinations

import torch
from torch import Tensor

from tests.support.engine import SmallNet
from workers.methods.base import Maps
from workers.methods.superpixels import segmented

BASELINE = 0.25


def per_segment(maps: Maps, labels: Tensor) -> Tensor:
    """Return the sum of each map over each segment, shape ``(K, segments)``."""
    flat = maps.values.flatten(1).double()
    out = torch.zeros(len(flat), int(labels.max()) + 1, dtype=torch.float64)
    return out.index_add_(1, labels.flatten(), flat)


def scores_of(net: SmallNet, image: Tensor, labels: Tensor, shown: Tensor) -> Tensor:
    """Return scores ``(n, classes)`` of the image with some segments `shown`, ``(n, segments)``."""
    masks = shown.to(image)[:, None, labels]
    with torch.no_grad():
        return net(BASELINE + masks * (image - BASELINE))


def shapley_values(net: SmallNet, image: Tensor, count: int) -> Tensor:
    """Return Shapley values ``(classes, segments)`` by their definition, subset by subset."""
    labels = segmented(image, count)
    segments = int(labels.max()) + 1
    subsets = [s for n in range(segments + 1) for s in combinations(range(segments), n)]
    shown = torch.zeros(len(subsets), segments, dtype=torch.bool)
    for row, subset in enumerate(subsets):
        shown[row, list(subset)] = True
    score = dict(zip(subsets, scores_of(net, image, labels, shown), strict=True))
    values = torch.zeros(segments, score[()].numel(), dtype=torch.float64)
    for subset in subsets:
        for member in subset:
            without = tuple(each for each in subset if each != member)
            weight = 1 / (segments * math.comb(segments - 1, len(without)))
            values[member] += weight * (score[subset] - score[without])
    return values.T
