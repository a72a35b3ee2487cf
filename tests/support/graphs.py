"""Small ONNX graphs, and onnxruntime's word on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from workers.runtimes.graph.network import Network
from workers.runtimes.graph.read import read_graph, read_model

Arrays = Sequence[NDArray[Any] | None]


SETTLED = {"Resize": 1, "BatchNormalization": 3}
"""Inputs from which on floats are constants."""


@dataclass(frozen=True)
class Case:
    """One node: its operator, its inputs, its attributes."""

    operator: str
    inputs: Arrays
    """`None` for one left out; integers are constants of the graph."""

    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    smooth: bool = True
    """Whether the operator has a derivative at these inputs."""

    changing: frozenset[int] = frozenset()
    """Integer inputs that are inputs of the graph all the same."""

    def __str__(self) -> str:
        told = ",".join(f"{name}={value}" for name, value in self.attributes.items())
        return f"{self.operator}-{self.opset}-{told}"[:90]

    @property
    def given(self) -> dict[str, NDArray[Any]]:
        """Inputs of the graph by name."""
        return {
            f"x{k}": each
            for k, each in enumerate(self.inputs)
            if each is not None and (self._varies(k, each) or k in self.changing)
        }

    def _varies(self, k: int, values: NDArray[Any]) -> bool:
        """Tell whether an input is data, not something that a training or an export settled."""
        return values.dtype.kind == "f" and k < SETTLED.get(self.operator, len(self.inputs))

    def model(self) -> Any:
        """Return the graph."""
        names = ["" if each is None else f"x{k}" for k, each in enumerate(self.inputs)]
        outputs = [f"y{k}" for k in range(self.outputs)]
        node = helper.make_node(self.operator, names, outputs, **self.attributes)
        constants = [
            numpy_helper.from_array(each, name)
            for each, name in zip(self.inputs, names, strict=True)
            if each is not None and name not in self.given
        ]
        return model_of([node], list(self.given.items()), outputs, constants, self.opset)


def model_of(
    nodes: Sequence[Any],
    inputs: Sequence[tuple[str, NDArray[Any]]],
    outputs: Sequence[str],
    constants: Sequence[Any] = (),
    opset: int = 17,
) -> Any:
    """Return a model of some nodes; the inputs' types and ranks are those of the arrays."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(each.dtype), [None] * each.ndim
            )
            for name, each in inputs
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def on_onnxruntime(model: bytes, given: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the outputs, every optimization left out."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = [np.asarray(each) for each in session.run(None, dict(given))]
    return found


def network_of(model: bytes) -> Network:
    """Return our own network of a model."""
    return Network(read_graph(read_model(model)))
