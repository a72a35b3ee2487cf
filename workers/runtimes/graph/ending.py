"""How a graph ends: in logits, or in the sigmoid or softmax of them."""

from collections.abc import Container
from typing import Any, Final

import onnx

from service.domain.manifest import Manifest
from service.errors.models import ModelUnavailable

MAKERS: Final = frozenset({"Sigmoid", "HardSigmoid", "Softmax"})
"""Operators that make probabilities."""

LAID: Final = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
"""Operators that leave numbers as they are."""

ROUNDED: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})

ONE_AXIS: Final = 13
"""Operator set since which a softmax is over one axis, and not over all from there on."""


def demand_ending(model: Any, manifest: Manifest) -> None:
    """Hold the end of a graph against the manifest's word that it puts out logits.

    Raises
    ------
    ModelUnavailable
        It ends in a sigmoid or a softmax.
    """
    if manifest.activation != "logits" or not manifest.decides:
        return
    last = _last(model, LAID | ROUNDED)
    if last is not None and last.op_type in MAKERS:
        raise ModelUnavailable(
            "The manifest says that the network puts out logits, and its graph ends in the operator"
            " that makes probabilities of them. Say 'activation: probabilities', with"
            " 'probabilities' in place of 'logits' in each self-test, or export the graph without"
            " it.",
            pointer="/activation",
            operator=last.op_type,
        )


def bare(model: Any, manifest: Manifest) -> bool:
    """Put what a graph's last sigmoid or softmax is given before its outputs; tell if there is.

    So logits are the graph's own, also where their probabilities were rounded to 0 or 1.

    Parameters
    ----------
    model
        An ONNX model of probabilities, which is changed.
    """
    last = _last(model, {"Identity"})
    wanted = _is_softmax_of_classes if manifest.exclusive else _is_sigmoid
    if last is None or not wanted(last, model, manifest):
        return False
    name = last.input[0]
    others = [output for output in model.graph.output if output.name != name]
    del model.graph.output[:]
    model.graph.output.extend([onnx.ValueInfoProto(name=name), *others])
    return True


def _last(model: Any, passed: Container[str]) -> Any:
    """Return the node that makes the first output, those passed over; `None` if there is none."""
    made = {name: node for node in model.graph.node for name in node.output}
    node = made.get(model.graph.output[0].name)
    while node is not None and node.op_type in passed:
        node = made.get(node.input[0])
    return node


def _is_sigmoid(node: Any, _model: Any, _manifest: Manifest) -> bool:
    return bool(node.op_type == "Sigmoid")


def _is_softmax_of_classes(node: Any, model: Any, manifest: Manifest) -> bool:
    """Tell whether a node is a softmax over axis 1 alone, as far as the file says."""
    if node.op_type != "Softmax":
        return False
    opset = max(each.version for each in model.opset_import if each.domain in {"", "ai.onnx"})
    modern = opset >= ONE_AXIS
    axis = {each.name: each.i for each in node.attribute}.get("axis", -1 if modern else 1)
    if manifest.task == "segmentation":
        return bool(modern and axis == 1)
    return axis in {1, -1}  # of rows of classes, the last
