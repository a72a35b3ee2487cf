"""A graph as a torch module: each node a module of its own, named by what it puts out.

So whatever hooks, copies or differentiates modules works on it, and the places
that methods may name are the graph's own tensors.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from typing_extensions import override

from workers.runtimes.graph.operators.base import Function, UnsupportedGraph, find, keywords
from workers.runtimes.graph.read import Graph, Node

OPSETS: Final = range(11, 22)
"""Versions of the standard's set of operators that are interpreted."""

STEERED: Final = {"Resize": 1}
"""Operators of which floats steer too, from an input on."""

NAMED: Final = 10
"""Missing operators that are told of at most."""


Names = tuple[str, ...]


class Operation(nn.Module):
    """One node: its operator, its attributes, and those of its inputs that never change.

    Constant floats are parameters, except those that steer; these, and all other
    constants, stay on the CPU.
    """

    def __init__(self, node: Node, function: Function, constants: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.inputs = tuple(each for each in node.inputs if each and each not in constants)
        self.outputs = node.outputs
        self._function = function
        self._attributes = _attributes(node, function)
        self._plan: list[str | Tensor | None] = []
        """For each input: a parameter's name, a constant, `None`; or ``""`` for what changes."""
        for k, name in enumerate(node.inputs):
            known = constants.get(name)
            if isinstance(known, nn.Parameter) and k >= STEERED.get(
                node.operator, len(node.inputs)
            ):
                self._plan.append(known.data)
            elif isinstance(known, nn.Parameter):
                self.register_parameter(f"input_{k}", known)
                self._plan.append(f"input_{k}")
            else:
                self._plan.append("" if name and known is None else known)

    @override
    def forward(self, *given: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute the outputs from the inputs that change, in order."""
        changing = iter(given)
        arguments = [
            (self.get_parameter(each) if each else next(changing))
            if isinstance(each, str)
            else each
            for each in self._plan
        ]
        return self._function(*arguments, **self._attributes)


class Network(nn.Module):
    """A graph, differentiable with respect to its inputs and to what its nodes put out.

    Parameters
    ----------
    graph
        Its nodes stand in order; what depends on constants alone is computed
        here, once.
    names
        Other names for places, by tensor.
    channels_last
        Whether the graph wants the channels of its inputs last, which it is
        given first.

    Raises
    ------
    UnsupportedGraph
        It uses operators, or forms of them, that are not interpreted.
    """

    def __init__(
        self,
        graph: Graph,
        names: Mapping[str, str] | None = None,
        *,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        _require(graph)
        self._channels_last = channels_last
        constants = {name: _constant(each) for name, each in graph.constants.items()}
        kept = []
        for node in graph.nodes:
            function = find(node.operator, graph.opset)
            assert function is not None  # noqa: S101 - as required above
            operation = Operation(node, function, constants)
            if operation.inputs:
                kept.append(operation)
                continue
            with torch.no_grad():
                found = _outputs(operation.outputs, operation())
            constants |= {name: _constant(each) for name, each in found}
        self.inputs = graph.inputs
        self.output = graph.outputs[0]
        if self.output in constants:
            raise UnsupportedGraph("Its output does not depend on its input.")
        self._order: list[tuple[str, Names, Names, Names]] = []
        """Name, inputs, outputs, and the tensors that nobody needs afterwards."""
        for name, operation, done in _steps(_needed(kept, self.output), self.output, names or {}):
            self._modules[name] = operation  # not `add_module`, which takes no name with a dot
            self._order.append((name, operation.inputs, operation.outputs, done))

    @override
    def forward(self, *given: Tensor) -> Tensor:
        """Return the graph's first output."""
        if self._channels_last:
            given = tuple(each.movedim(1, -1) for each in given)
        values = dict(zip(self.inputs, given, strict=True))
        for name, inputs, outputs, done in self._order:
            module: Any = self._modules[name]
            found = module(*[values[each] for each in inputs])
            values.update(_outputs(outputs, found))
            for each in done:
                values.pop(each, None)
        return values[self.output]


def _require(graph: Graph) -> None:
    """Refuse a graph that cannot be interpreted, with every reason that is seen at once."""
    if graph.opset not in OPSETS:
        raise UnsupportedGraph(
            f"Its operators are of opset {graph.opset}; those of {OPSETS[0]} to {OPSETS[-1]} are"
            " interpreted."
        )
    used = {node.operator for node in graph.nodes}
    missing = sorted(each for each in used if find(each, graph.opset) is None)
    if missing:
        told = ", ".join(each[:40] for each in missing[:NAMED])
        raise UnsupportedGraph(f"It has operators that are not interpreted: {told}.")


def _constant(tensor: Tensor) -> Tensor:
    """Return a constant; of floats, as a parameter, which moves with the network."""
    if isinstance(tensor, nn.Parameter) or not tensor.is_floating_point():
        return tensor
    return nn.Parameter(tensor, requires_grad=False)


def _attributes(node: Node, function: Function) -> dict[str, Any]:
    """Return what the operator's function is given beside its inputs."""
    taken = keywords(function)
    strange = sorted(node.attributes.keys() - taken)
    if strange:
        raise UnsupportedGraph(
            f"It has '{node.operator[:40]}' with attribute '{strange[0][:40]}', which is not"
            " interpreted."
        )
    count = {"count": sum(map(bool, node.outputs))} if "count" in taken else {}
    return {**node.attributes, **count}


def _outputs(names: Names, found: Tensor | tuple[Tensor, ...]) -> Iterator[tuple[str, Tensor]]:
    """Iterate over what a node put out, by name."""
    values = (found,) if isinstance(found, Tensor) else found
    return zip(names, values, strict=False)


def _needed(operations: Sequence[Operation], output: str) -> list[Operation]:
    """Return the operations on which an output depends, in order."""
    wanted, kept = {output}, []
    for operation in reversed(operations):
        if wanted.intersection(operation.outputs):
            wanted.update(operation.inputs)
            kept.append(operation)
    return kept[::-1]


def _steps(
    operations: Sequence[Operation], output: str, names: Mapping[str, str]
) -> list[tuple[str, Operation, tuple[str, ...]]]:
    """Return each operation with its name, and the tensors that nobody needs after it."""
    steps, later = [], {output}
    for operation in reversed(operations):
        done = {*operation.inputs, *operation.outputs} - later
        later.update(operation.inputs)
        first = next(filter(None, operation.outputs))
        steps.append((names.get(first, first), operation, tuple(done)))
    return steps[::-1]
