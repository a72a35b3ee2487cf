"""Where the findings can be: all of the image but its corners."""

from collections.abc import Mapping

import numpy as np

from examples.phantom.canvas import Mask
from examples.phantom.evaluate import Table
from examples.phantom.findings import FINDINGS
from examples.phantom.samples import Samples
from service.domain.regions import InnerRegion

REGION = InnerRegion(border=0.0, corner=0.13)
"""What holds every lesion, and not the corner marker."""

_TOLD = """\
The manifest's expected region is the image without its corners ({corner:.0f} % of each edge). Of
the lesions of the least covered finding, {mean:.2f} % of the area lies in it on the mean; of the
least covered lesion, {least:.1f} %. It has no border: the body reaches the image's edge, and hiding
that edge lowers the score of effusions that have nothing to do with it."""


def inside(region: InnerRegion, size: tuple[int, int]) -> Mask:
    """Return the pixels, ``(rows, columns)``, whose middle lies in the region."""
    down, right = (_from_edge(length) for length in size)
    within = (down >= region.border)[:, None] & (right >= region.border)
    corners = (down < region.corner)[:, None] & (right < region.corner)
    return within & ~corners


def coverage(samples: Samples) -> Table:
    """Return the share of the lesions' area that lies in `REGION`, for each finding.

    ``mean`` over the cases that have it, and ``least`` of any.
    """
    place = inside(REGION, samples.masks.shape[-2:])
    figures: Table = {}
    for index, name in enumerate(FINDINGS):
        masks = samples.masks[samples.labels[:, index], index]
        shares = (masks & place).sum((1, 2)) / masks.sum((1, 2))
        figures[name] = {"mean": float(shares.mean()), "least": float(shares.min())}
    return figures


def told(covered: Mapping[str, Mapping[str, float]]) -> str:
    """Return in words what `coverage` found, of the finding that fares worst."""
    mean, least = (100 * min(each[key] for each in covered.values()) for key in ("mean", "least"))
    return _TOLD.format(corner=100 * REGION.corner, mean=mean, least=least)


def _from_edge(length: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return how far each pixel's middle is from the nearer end, as a share of the length."""
    middle = (np.arange(length) + 0.5) / length
    return np.minimum(middle, 1 - middle)
