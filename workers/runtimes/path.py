"""Whether a network's gradients add up to its changes in score: tried, never believed.

They do wherever all that moves a score is differentiable, or bent at places of
no extent. A part that is cut off from the gradient, or that rounds, is missing
from every gradient, and nothing tells.
"""

from typing import Final

import torch
from torch import Tensor, nn

from workers.runtimes.rescale import Mix

POINTS: Final = (16, 128)
"""On the way; each is a gradient row. More are tried where the first do not suffice: a score that
only bends sharply needs no more than that."""

TOLERANCE: Final = 0.1
"""Share of all that the score moves on the way by which the gradients' sum may miss its change.

So few points leave up to 2 % on the bundled models.
"""

SHORT: Final = (
    "Its gradients miss the change in score on a way between two images by {share:.2g} of it, and "
    f"{TOLERANCE} is allowed: a part of the network has no gradient, or the score bends more"
    f" sharply than {POINTS[-1]} points show."
)


def path_fault(model: nn.Module, start: Tensor, end: Tensor) -> str | None:
    """Return why gradients cannot be added up along a way, or `None` when they can.

    Parameters
    ----------
    start, end
        Ends of the way, shape ``(1, C, *spatial)``.
    """
    mix, way = Mix(), end - start
    with torch.no_grad():
        change = (mix(model(end)) - mix(model(start))).double().sum()
    share = float("nan")
    for points in POINTS:
        middles = [(k + 0.5) / points for k in range(points)]
        slopes = torch.stack([_slope(model, mix, start + at * way, way) for at in middles])
        most = torch.max(slopes.abs().mean(), change.abs())
        share = ((slopes.mean() - change).abs() / most).item()
        if share <= TOLERANCE:
            return None
    return SHORT.format(share=share)  # a NaN is a fault


def _slope(model: nn.Module, mix: Mix, point: Tensor, way: Tensor) -> Tensor:
    """Return how fast the score changes along the way at a point."""
    point = point.requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(mix(model(point)).sum(), [point])
    return (gradient * way).double().sum()
