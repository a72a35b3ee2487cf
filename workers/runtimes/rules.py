"""Other derivatives of rectifiers, put into the graph of one pass.

The model is not touched: hooks stand on the nodes that autograd made for the
pass at hand. Modules, functions, in-place calls and a ReLU used twice are
alike there, other threads see nothing of it, and nothing is left behind.
"""

from collections.abc import Callable
from typing import Any, Final

from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node

from service.errors.models import UnservablePass
from workers.passes import Rule
from workers.runtimes.harmless import harmless, is_mask, operation

HIDING: Final[dict[str, str]] = {
    "CopySlices": "The model writes into views, which may hide a ReLU.",
    "WhereBackward0": "The model chooses between values (where), which may be a ReLU.",
    "MaskedFillBackward0": "The model fills in values by a mask, which may be a ReLU.",
    "IndexPutBackward0": "The model writes into places, which may be a ReLU.",
    "AbsBackward0": "The model takes magnitudes (abs), which may be part of a ReLU.",
}
"""By node: why nobody can tell whether there is a ReLU that a rule would have to change."""

MASKED: Final = "The model multiplies by a mask or by signs, which may be a ReLU."
UNKNOWN: Final = (
    "The model has the operation '{}' in a form of which it is not known that no ReLU is in it. "
    "Write every ReLU as torch's own."
)
OPAQUE: Final = "The model has a function of its own derivative, which may hide a ReLU."

FLOORS: Final[dict[str, str]] = {
    "ClampBackward0": "_saved_min",
    "ClampBackward1": "_saved_min",
    "ClampMinBackward0": "_saved_min",
    "ClampMinBackward1": "_saved_min",
    "HardtanhBackward0": "_saved_min_val",
    "ThresholdBackward0": "_saved_threshold",
    "LeakyReluBackward0": "_saved_negative_slope",
    "PreluKernelBackward0": "_saved_weight",
    "EluBackward0": "_saved_alpha",
}
"""By node: what must be zero for it to be a ReLU, be it one with a ceiling as ReLU6."""

Gradients = tuple[Tensor | None, ...]


def apply_rule(outputs: Tensor, rule: Rule) -> None:
    """Take the derivatives of every ReLU that led to `outputs` by `rule`.

    Raises
    ------
    UnservablePass
        If there is no ReLU, or some operation may hide one.
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
        fault = _fault(node)
        if fault is not None:
            return [], fault
        if _rectifies(node):
            found.append(node)
        elif not harmless(node):
            return [], UNKNOWN.format(operation(node))
        waiting += [each for each, _ in node.next_functions]
    return found, None if found else "The model has no ReLU."


def _rectifies(node: Node) -> bool:
    """Tell whether a node is a ReLU, however it is written."""
    if node.name() == "ReluBackward0":
        return True
    if node.name() in {"MaximumBackward0", "FmaxBackward0"}:
        return any(_zero(getattr(node, each)) for each in ("_saved_self", "_saved_other"))
    floor = FLOORS.get(node.name())
    return floor is not None and _zero(getattr(node, floor))


def _fault(node: Node) -> str | None:
    """Return why a node may be a ReLU that nobody can tell from something else, if so."""
    if isinstance(node, BackwardCFunction):
        return OPAQUE
    for name, reason in HIDING.items():
        if name in node.name():
            return reason
    if node.name() == "MulBackward0":
        factors = (getattr(node, each) for each in ("_saved_self", "_saved_other"))
        return MASKED if any(is_mask(each) for each in factors) else None
    return None


def _zero(bound: Any) -> bool:
    return not bound.any() if isinstance(bound, Tensor) else bound == 0 and bound is not None


def _guided(inputs: Gradients, _outputs: Gradients) -> Gradients:
    """Keep what is positive of a gradient that passed where the ReLU was active."""
    return tuple(None if each is None else each.clamp(min=0) for each in inputs)


def _deconvolution(inputs: Gradients, outputs: Gradients) -> Gradients:
    """Keep what is positive of a gradient, wherever the ReLU was active."""
    (output,) = outputs
    kept = None if output is None else output.clamp(min=0)
    return tuple(None if each is None else kept for each in inputs)


HOOKS: Final[dict[Rule, Callable[[Gradients, Gradients], Gradients]]] = {
    Rule.GUIDED: _guided,
    Rule.DECONVOLUTION: _deconvolution,
}
