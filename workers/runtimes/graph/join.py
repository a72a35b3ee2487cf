"""Several outputs of a graph laid into one, which everything here is asked about."""

from collections.abc import Sequence
from typing import Any, Final

import onnx
from onnx import helper

from service.errors.models import ModelUnavailable

JOINED: Final = "whylight_joined"


def joined(model: Any, names: Sequence[str], axis: int) -> Any:
    """Put one output before a graph's others: those of these names, one after the other.

    Parameters
    ----------
    model
        An ONNX model, which is changed.
    axis
        Along which they are laid; they must be alike along all others.

    Raises
    ------
    ModelUnavailable
        The graph has no such output.
    """
    found = [output.name for output in model.graph.output]
    if missing := [name for name in names if name not in found]:
        raise ModelUnavailable(
            "The ONNX graph has no such output; mend 'tensors' by 'found'.",
            pointer="/outputs/0/boxes/tensors",
            missing=[*missing],
            found=[*found[:100]],
        )
    model.graph.node.append(helper.make_node("Concat", list(names), [JOINED], axis=axis))
    outputs = [onnx.ValueInfoProto(name=JOINED), *model.graph.output]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    return model
