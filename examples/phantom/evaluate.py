"""How well a network finds the findings, and whether its maps point at them.

The maps are computed here in their plainest form, apart from the service's own
methods, so that the figures speak of the model and not of the service.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from examples.phantom.canvas import Array
from examples.phantom.findings import FINDINGS
from examples.phantom.preparation import BASELINE, SIDE
from examples.phantom.samples import Samples

LAYER = "peaks"
"""What the pooling averages: where CAM methods look."""

MARGIN = 3
"""A peak may miss the mask by this many pixels of the model's input (2.3 % of its width)."""

IG_STEPS = 32
CHUNK = 16
"""Images at once: few, so that their features stay in the processor's cache."""

PATCH, STRIDE = 16, 8
"""Occlusion: side of the window and its step, in pixels of the model's input."""

Map = Callable[[nn.Module, Tensor, int], Tensor]
"""Takes network, image ``(1, SIDE, SIDE)`` and class; gives a map ``(SIDE, SIDE)``."""

Table = dict[str, dict[str, float]]
"""Figures by finding."""


def measure(network: nn.Module, samples: Samples) -> dict[str, Any]:
    """Return ``detection``, and ``pointing`` by method."""
    pointed = {
        name: pointing(network, samples, method, LIMITS.get(name, len(samples.labels)))
        for name, method in METHODS.items()
    }
    return {"detection": detection(network, samples), "pointing": pointed}


def logits_of(network: nn.Module, images: Array) -> Array:
    """Return the logits of images ``(N, 1, SIDE, SIDE)``, shape ``(N, findings)``."""
    with torch.no_grad():
        parts = [network(part) for part in torch.split(torch.from_numpy(images), CHUNK)]
    logits: Array = torch.cat(parts).numpy()
    return logits


def auc(scores: Array, present: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: how often a positive outranks a negative."""
    above = scores[present][:, None] - scores[~present][None, :]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


def detection(network: nn.Module, samples: Samples) -> Table:
    """Return AUC, sensitivity and specificity at probability 0.5, for each finding."""
    logits = logits_of(network, samples.images)
    figures: Table = {}
    for place, name in enumerate(FINDINGS):
        present, score = samples.labels[:, place], logits[:, place]
        figures[name] = {
            "positives": int(present.sum()),
            "negatives": int((~present).sum()),
            "auc": auc(score, present),
            "sensitivity": float((score[present] > 0).mean()),
            "specificity": float((score[~present] <= 0).mean()),
        }
    return figures


def pointing(network: nn.Module, samples: Samples, attribute: Map, limit: int) -> Table:
    """Return how often a map's peak lies in the lesion, for each finding.

    Parameters
    ----------
    attribute
        The method.
    limit
        At most this many true positives of each finding are tried.
    """
    logits = logits_of(network, samples.images)
    figures: Table = {}
    for place, name in enumerate(FINDINGS):
        tried = np.flatnonzero(samples.labels[:, place] & (logits[:, place] > 0))[:limit]
        images = torch.from_numpy(samples.images[tried])
        maps = [attribute(network, image, place) for image in images]
        masks = torch.from_numpy(samples.masks[tried, place])
        hits = [hit(each, mask) for each, mask in zip(maps, masks, strict=True)]
        figures[name] = {"true_positives": len(hits), "hit_rate": sum(hits) / max(len(hits), 1)}
    return figures


def hit(attribution: Tensor, mask: Tensor) -> bool:
    """Tell whether the largest value lies within `MARGIN` pixels of the mask."""
    near = functional.max_pool2d(mask[None].float(), 2 * MARGIN + 1, 1, MARGIN)
    return bool(near.flatten()[attribution.argmax()] > 0)


def grad_cam(network: nn.Module, image: Tensor, target: int) -> Tensor:
    """Return Grad-CAM of `LAYER`, enlarged linearly (Selvaraju et al., ICCV 2017)."""
    kept: list[Tensor] = []
    hook = network.get_submodule(LAYER).register_forward_hook(lambda *call: kept.append(call[2]))
    score = network(image[None])[0, target]
    hook.remove()
    (gradient,) = torch.autograd.grad(score, kept)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    cam = functional.relu((weights * kept[0]).sum(1, keepdim=True)).detach()
    return functional.interpolate(cam, (SIDE, SIDE), mode="bilinear")[0, 0]


def saliency(network: nn.Module, image: Tensor, target: int) -> Tensor:
    """Return the absolute gradient (Simonyan et al., 2014), averaged over 5 x 5 pixels."""
    return _smooth(_gradient(network, image[None], target)[0].abs())


def integrated_gradients(network: nn.Module, image: Tensor, target: int) -> Tensor:
    """Return integrated gradients from black (Sundararajan et al., 2017), averaged likewise."""
    points = ((torch.arange(IG_STEPS) + 0.5) / IG_STEPS)[:, None, None, None]
    path = BASELINE + points * (image - BASELINE)
    return _smooth((image - BASELINE) * _gradient(network, path, target).mean(0))


def occlusion(network: nn.Module, image: Tensor, target: int) -> Tensor:
    """Return the fall of the score when a window is black (Zeiler & Fergus, 2014)."""
    total, count = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    corners = [
        (slice(row, row + PATCH), slice(column, column + PATCH))
        for row in range(0, SIDE - PATCH + 1, STRIDE)
        for column in range(0, SIDE - PATCH + 1, STRIDE)
    ]
    rows = np.repeat(image[None].numpy(), len(corners), axis=0)
    for row, window in zip(rows, corners, strict=True):
        row[0][window] = BASELINE
    before, after = (logits_of(network, each)[:, target] for each in (image[None].numpy(), rows))
    for drop, window in zip(before - after, corners, strict=True):
        total[window] += drop
        count[window] += 1
    return torch.from_numpy(total / count)


METHODS: dict[str, Map] = {
    "grad_cam": grad_cam,
    "saliency": saliency,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
}


LIMITS = {"integrated_gradients": 25, "occlusion": 25}
"""True positives of each finding that the slow methods are tried on; others take all."""


def _gradient(network: nn.Module, images: Tensor, target: int) -> Tensor:
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf)[:, target].sum(), leaf)
    return gradient


def _smooth(attribution: Tensor) -> Tensor:
    return functional.avg_pool2d(attribution[None], 5, 1, 2)[0, 0]
