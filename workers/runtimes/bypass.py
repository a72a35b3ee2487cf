"""Whether what a layer puts out is all that the network takes from there: tried, never believed.

Something else may hold the layer's output or write to what it shares: a hook of the
network's own, a view. The pass that captures the layer then scores otherwise than the
network does, or loses a way on which the score depends, and nothing tells.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from workers.rows import INPUT
from workers.sameness import same

Forward = Callable[[Tensor, set[str], set[str]], tuple[Tensor, dict[str, Tensor]]]
"""Of a batch, the places that are wanted and those where the graph begins: see `TorchRuntime`."""

EQUAL: Final = 1e-4
"""Share of the largest value within which rounding may part what is the same."""

ASIDE: Final = (
    "The network does not go on with what '{layer}' puts out: it is called for what it changes in"
    " place. Name the layer before or after."
)
BYPASSED: Final = (
    "The network takes what '{layer}' puts out past the layer too, by a hook of its own or by"
    " something that shares its values: no map of it would be right. Name the layer before or"
    " after."
)


def bypass_fault(forward: Forward, served: nn.Module, row: Tensor, layer: str) -> str | None:
    """Return why no score can be followed from a layer's output, or `None` when it can.

    Parameters
    ----------
    row
        A batch of one, shape ``(1, C, *spatial)``.
    """
    cut, found = forward(row.clone(), {layer}, {layer})
    whole, there = forward(row.clone(), {layer}, {INPUT, layer})
    near, far = _slope(cut, found[layer]), _slope(whole, there[layer])
    if near is None or far is None:
        return ASIDE.format(layer=layer)
    with torch.no_grad():
        plain: Tensor = served(row.clone())
    pairs = ((cut, plain), (whole, plain), (near, far))
    return None if all(same(*pair, EQUAL) for pair in pairs) else BYPASSED.format(layer=layer)


def _slope(outputs: Tensor, place: Tensor) -> Tensor | None:
    """Return the gradient of a mix of the outputs at a place, if any leads there."""
    if not outputs.requires_grad:
        return None
    weights = torch.linspace(1, 2, outputs.numel()).to(outputs).view_as(outputs)
    (gradient,) = torch.autograd.grad((outputs * weights).sum(), [place], allow_unused=True)
    return gradient
