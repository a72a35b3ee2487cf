"""An ONNX file read as data: bounded, and with nothing from outside its package.

The limits hold before anything is built, also by onnxruntime: functions that
call functions can stand for more nodes than any machine could hold.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx.inliner
import onnx.numpy_helper
import torch
from torch import Tensor

from service.errors.models import InvalidPackage
from workers.runtimes.graph.operators.base import UnsupportedGraph
from workers.state_dicts import no_numbers

MODEL_BYTES: Final = 2**31 - 1
"""Bytes of a model, external data and all: the most that one protobuf message may have."""

NODES: Final = 20_000
"""Nodes of a graph, its functions written out; a Swin transformer has some 1,500."""

FLOATS: Final = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
    }
)

MULTIPLYING: Final = frozenset(
    {
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "DequantizeLinear",
        "Gemm",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "MatMul",
        "Mul",
        "PRelu",
        "QuantizeLinear",
    }
)
"""Operators for whose constants infinity is no value; others may mask or bound with it."""

DOMAINS: Final = ("", "ai.onnx")
"""Names of the standard's own set of operators."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator at work."""

    operator: str
    """With its domain in front if that is not the standard's own."""

    inputs: tuple[str, ...]
    """Names of tensors; ``""`` for one left out."""

    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A graph whose nodes stand in the order in which they can run."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]
    opset: int


def read_model(data: bytes, folder: Path | None = None, files: Collection[str] = ()) -> Any:
    """Return a model's protobuf message, its external data brought in.

    Parameters
    ----------
    folder
        Where the file lies; external data is looked for there.
    files
        Paths in `folder` that may hold external data, their digests checked.

    Raises
    ------
    InvalidPackage
        It is none, or is over a limit, or asks for data that is not its own.
    """
    if len(data) > MODEL_BYTES:
        raise _refused(f"The ONNX model is larger than {MODEL_BYTES} bytes.")
    try:
        model = onnx.load_from_string(data)
        nodes = _nodes(model)
    except Exception:  # noqa: BLE001 - foreign parsers raise what they like
        raise _refused("The ONNX model cannot be read; export it again.") from None
    if nodes > NODES:
        raise _refused(f"The ONNX model has more nodes than the {NODES} allowed.")
    room = MODEL_BYTES - len(data)
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            room -= _bring_in(tensor, folder, files, room)
    return model


def demand_finite(model: Any) -> None:
    """Require that a model's weights are numbers.

    Raises
    ------
    ModelUnavailable
        A constant holds NaN, or infinity where that is no mask or bound; it is named.
    """
    scopes = list(_scopes(model))
    nodes = (each for nodes, _ in scopes for each in nodes)
    weights = {name for each in nodes if each.op_type in MULTIPLYING for name in each.input}
    constants = (each for scope in scopes for each in _named(*scope))
    spoiled = [name for name, each in constants if _is_spoiled(each, weight=name in weights)]
    if spoiled:
        raise no_numbers(spoiled)


def _is_spoiled(tensor: Any, *, weight: bool) -> bool:
    """Tell whether a constant holds NaN, or as a weight infinity."""
    if tensor.data_type not in FLOATS:
        return False
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except Exception:  # noqa: BLE001 - it is damaged in another way, which onnxruntime tells
        return False
    return bool(np.isnan(values).any() or (weight and np.isinf(values).any()))


def read_graph(model: Any) -> Graph:
    """Return the graph of a model that was read.

    Raises
    ------
    UnsupportedGraph
        It uses a part of ONNX that is not interpreted.
    """
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    graph = model.graph
    if graph.sparse_initializer:
        raise UnsupportedGraph("It has sparse constants, which are not interpreted.")
    constants = {each.name: _tensor(each) for each in graph.initializer}
    return Graph(
        inputs=tuple(each.name for each in graph.input if each.name not in constants),
        outputs=tuple(each.name for each in graph.output),
        nodes=tuple(_node(each) for each in graph.node),
        constants=constants,
        opset=_opset(model),
    )


# ------------------------------------------------------------------------ bounds


def _nodes(model: Any) -> int:
    """Count the nodes of a model with every function written out."""
    functions = {(each.domain, each.name): each for each in model.functions}

    @cache
    def of_function(key: tuple[str, str]) -> int:
        return sum(map(of_node, functions[key].node))

    def of_node(node: Any) -> int:
        inner = sum(sum(map(of_node, graph.node)) for graph in _graphs(node))
        key = (node.domain, node.op_type)
        return inner + (of_function(key) if key in functions else 1)

    return sum(map(of_node, model.graph.node))


def _graphs(node: Any) -> Iterator[Any]:
    """Iterate over the graphs that a node holds, as branches and loops do."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(model: Any) -> Iterator[Any]:
    """Iterate over every constant of a model, wherever it stands."""
    yield from _in_graph(model.graph)
    for function in model.functions:
        yield from _in_nodes(function.node)


def _in_graph(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _in_nodes(graph.node)


def _in_nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for graph in _graphs(node):
            yield from _in_graph(graph)


def _scopes(model: Any) -> Iterator[tuple[Any, Any]]:
    """Iterate over the graphs of a model, within each other as well: nodes and initializers."""
    waiting = [(each.node, ()) for each in model.functions]
    waiting.append((model.graph.node, model.graph.initializer))
    while waiting:
        nodes, initializers = waiting.pop()
        yield nodes, initializers
        waiting += [(each.node, each.initializer) for node in nodes for each in _graphs(node)]


def _named(nodes: Any, initializers: Any) -> Iterator[tuple[str, Any]]:
    """Iterate over a graph's own constants with their names."""
    yield from ((each.name, each) for each in initializers)
    for node in nodes:
        if node.op_type == "Constant":
            yield from ((node.output[0], each.t) for each in node.attribute if each.HasField("t"))


# ----------------------------------------------------------------- external data


def _bring_in(tensor: Any, folder: Path | None, files: Collection[str], room: int) -> int:
    """Put a tensor's external data into it; return how many bytes there were."""
    told = {each.key: each.value for each in tensor.external_data}
    path = _inside(told.get("location", ""), folder, files)
    size = path.stat().st_size
    try:
        offset = int(told.get("offset", 0))
        length = int(told.get("length", size - offset))
    except ValueError:
        raise _refused("The ONNX model's external data has no place in its file.") from None
    if not (min(offset, length) >= 0 and offset + length <= size):
        raise _refused("The ONNX model's external data ends before its tensors do.")
    if length > room:
        raise _refused(f"The ONNX model is larger than {MODEL_BYTES} bytes.")
    with path.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(length)
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.DEFAULT
    return length


def _inside(location: str, folder: Path | None, files: Collection[str]) -> Path:
    """Return the file of external data, which must be one of the package's own."""
    if folder is not None and location in files:
        path = folder / location
        own = path.is_relative_to(folder) and not path.is_symlink()
        if own and path.resolve().is_relative_to(folder.resolve()) and path.is_file():
            return path
    raise _refused(
        "The ONNX model keeps data in a file that is none of the package's; list it under 'files'"
        " with role 'forward' and format 'onnx_data', and name it by its path beside the model."
    )


# ------------------------------------------------------------------------- parts


def _node(node: Any) -> Node:
    own = node.domain in DOMAINS
    return Node(
        operator=node.op_type if own else f"{node.domain}.{node.op_type}",
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={each.name: _attribute(each) for each in node.attribute},
    )


def _attribute(attribute: Any) -> Any:
    """Return an attribute's value as Python has it."""
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _tensor(value)
    if attribute.type == onnx.AttributeProto.STRING:
        return value.decode("utf-8", "replace")
    return value


def _tensor(tensor: Any) -> Tensor:
    """Return a constant."""
    array = np.array(onnx.numpy_helper.to_array(tensor))  # a copy, which may be written to
    if tensor.data_type == onnx.TensorProto.BFLOAT16:
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    try:
        return torch.from_numpy(array)
    except TypeError:
        raise UnsupportedGraph("It uses a type of number that is not interpreted.") from None


def _opset(model: Any) -> int:
    versions = [each.version for each in model.opset_import if each.domain in DOMAINS]
    return int(versions[0]) if versions else 0


def _refused(why: str) -> InvalidPackage:
    """Return the refusal of a model's files."""
    return InvalidPackage(why, pointer="/files")
