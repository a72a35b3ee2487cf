"""A session of onnxruntime, and the names of what goes in and comes out of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnxruntime

from service.errors.models import InvalidPackage
from service.wording import nearest


def session(model: bytes) -> Any:
    """Return a session with one thread: workers are as many as cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its texts may quote what it read
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def exposed(model: Any, layers: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Append the layers' tensors to the graph's outputs; return those found, and why others not."""
    made = {name for node in model.graph.node for name in node.output}
    outputs = {output.name for output in model.graph.output}
    found = {layer: tensor for layer, tensor in layers.items() if tensor in made}
    for tensor in dict.fromkeys(found.values()):
        if tensor not in outputs:
            model.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return found, {
        layer: f"The graph has no tensor '{tensor}' for '{layer}'.{nearest(tensor, made)}"
        for layer, tensor in layers.items()
        if layer not in found
    }


def image_of(session: Any, beside: Sequence[str]) -> str:
    """Return the name of the input that is the image: what is left when all others are named.

    Raises
    ------
    InvalidPackage
        There are other inputs, or the others do not take float32.
    """
    inputs: dict[str, str] = {each.name: each.type for each in session.get_inputs()}
    rest = [name for name in inputs if name not in beside]
    if len(rest) != 1 or len(inputs) != 1 + len(beside):
        raise InvalidPackage(
            "The ONNX model must have one input for the image and one for each tabular input of"
            " the manifest, by its name; those of 'inputs' it has.",
            pointer="/inputs",
            inputs=[*(name[:64] for name in [*inputs][:16])],
        )
    if any(inputs[name] != "tensor(float)" for name in beside):
        raise InvalidPackage(
            "The tabular inputs of the ONNX model must take 32-bit floats.", pointer="/inputs"
        )
    return rest[0]
