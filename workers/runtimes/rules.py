"""Other derivatives of rectifiers, put into the graph of one pass.

The model is not touched: hooks stand on the nodes that autograd made for the
pass at hand. Modules, functions, in-place calls and a ReLU used twice are
alike there, other threads see nothing of it, and nothing is left behind.
"""

from collections.abc import Callable
from typing import Final

from torch import Tensor
from torch.autograd.graph import Node

from service.errors.models import UnservablePass
from workers.passes import Rule

RECTIFIER: Final = "ReluBackward0"
HIDDEN: Final = "CopySlices"
"""What writes into a view; autograd does not tell which function did."""

Gradients = tuple[Tensor | None, ...]


def apply_rule(outputs: Tensor, rule: Rule) -> None:
    """Take the derivatives of every ReLU that led to `outputs` by `rule`.

    Raises
    ------
    UnservablePass
        If there is no ReLU, or one may be hidden.
    """
    if rule is Rule.PLAIN:
        return
    found, fault = rectifiers(outputs)
    if fault is not None:
        raise UnservablePass(fault)
    for node in found:
        node.register_hook(HOOKS[rule])


def rectifiers(outputs: Tensor) -> tuple[list[Node], str | None]:
    """Return the nodes of all ReLUs that led to `outputs`, or why a rule cannot be applied."""
    found: list[Node] = []
    seen: set[Node] = set()
    waiting = [outputs.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if HIDDEN in node.name():
            return [], "The model writes into views, which may hide a ReLU."
        if node.name() == RECTIFIER:
            found.append(node)
        waiting += [each for each, _ in node.next_functions]
    return found, None if found else "The model has no ReLU."


def _guided(inputs: Gradients, _outputs: Gradients) -> Gradients:
    """Keep what is positive of a gradient that passed where the ReLU was active."""
    return tuple(None if each is None else each.clamp(min=0) for each in inputs)


def _deconvolution(_inputs: Gradients, outputs: Gradients) -> Gradients:
    """Keep what is positive of a gradient, wherever the ReLU was active."""
    return tuple(None if each is None else each.clamp(min=0) for each in outputs)


HOOKS: Final[dict[Rule, Callable[[Gradients, Gradients], Gradients]]] = {
    Rule.GUIDED: _guided,
    Rule.DECONVOLUTION: _deconvolution,
}
