"""A network as a list of steps, traced once; windows go through all that is understood."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from workers.runtimes.folding import NORMS, folds
from workers.runtimes.incremental.layers import (
    PASSING,
    POINTWISE_FUNCTIONS,
    POINTWISE_METHODS,
    POINTWISE_MODULES,
    RECTIFIERS,
    Function,
    Local,
    local,
)
from workers.runtimes.incremental.windows import Place


@dataclass(slots=True, eq=False)
class Step:
    """One layer, with the functions of each cell that follow it."""

    inputs: tuple[int, ...]
    """Numbers of the steps whose values it takes."""

    run: Function
    """The layer on whole grids; never writes into its arguments, if windows go through."""

    local: Local | None = None
    grid: Place | None = None
    """Cells of its output along each axis, if windows go through; else `None`."""

    tail: list[Callable[[Tensor], Tensor]] = field(default_factory=list)

    def finish(self, value: Tensor) -> Tensor:
        """Apply the functions that follow to a value that nobody else holds."""
        for function in self.tail:
            value = function(value)
        return value


class UntraceableError(Exception):
    """The network is not one that can be followed step by step."""


def trace(model: nn.Module, batch: Tensor) -> tuple[tuple[Step, ...], int]:
    """Return a model's steps, the first of which is the image, and the number of the result's.

    Parameters
    ----------
    batch
        One row, shape ``(1, C, *spatial)``.

    Raises
    ------
    UntraceableError
        If the model's way depends on what it is given, or on its own state.
    """
    try:
        graph = fx.Tracer().trace(model)
        return _Follower(model, batch).follow(graph)
    except UntraceableError:
        raise
    except Exception as error:  # a model is foreign code, and tracing calls it
        raise UntraceableError from error


class _Follower:
    """Makes steps of a graph's nodes, in order."""

    def __init__(self, model: nn.Module, batch: Tensor) -> None:
        self._modules = dict(model.named_modules())
        self._model = model
        self._steps = [Step((), lambda: batch, grid=tuple(batch.shape[2:]))]
        self._values: list[Any] = [batch]
        self._numbers: dict[fx.Node, int] = {}
        self._constants: dict[fx.Node, Any] = {}
        self._last: list[fx.Node | None] = [None]
        """By step: the node whose value it gives, if that is its alone."""

    def follow(self, graph: fx.Graph) -> tuple[tuple[Step, ...], int]:
        for node in graph.nodes:
            if node.op == "output":
                (result,) = node.args
                if not isinstance(result, fx.Node) or result not in self._numbers:
                    raise UntraceableError
                return tuple(self._steps), self._numbers[result]
            if node not in self._numbers:
                self._take(node)
        raise UntraceableError

    def _take(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            if self._numbers:
                raise UntraceableError  # a second input
            self._numbers[node] = 0
        elif node.op == "get_attr":
            self._constants[node] = operator.attrgetter(str(node.target))(self._model)
        elif not any(each in self._numbers for each in node.all_input_nodes):
            self._constants[node] = _call(node, self._modules, self._constants)
        else:
            self._demand_unseen_writes(node)
            if not self._understand(node):
                self._add_foreign(node)

    def _demand_unseen_writes(self, node: fx.Node) -> None:
        """Refuse a node that writes into a value which is used again: windows would miss it.

        A copy's version tells, so that nobody needs to know which layers write in place.

        Raises
        ------
        UntraceableError
            It does, into the value itself or into another that shares its memory.
        """
        given = {each: self._copy(each) for each in node.all_input_nodes}
        versions = {each: getattr(value, "_version", None) for each, value in given.items()}
        _call(node, self._modules, given)
        for each, value in given.items():
            if getattr(value, "_version", None) == versions[each]:
                continue
            sharing = [other for other in self._numbers if self._shares(other, each)]
            if not sharing or any(len(other.users) > 1 for other in sharing):
                raise UntraceableError

    def _copy(self, node: fx.Node) -> Any:
        number = self._numbers.get(node)
        value = self._constants[node] if number is None else self._values[number]
        return value.clone() if isinstance(value, Tensor) else value

    def _shares(self, one: fx.Node, other: fx.Node) -> bool:
        """Tell whether the values of two nodes lie in the same memory."""
        numbers = self._numbers.get(one), self._numbers.get(other)
        if None in numbers:
            return False
        first, second = (self._values[each] for each in numbers if each is not None)
        if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
            return first is second
        return first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()

    def _understand(self, node: fx.Node) -> bool:
        """Make a step through which windows go, if this is one; return whether it is."""
        if any(self._grid(each) is None for each in node.all_input_nodes):
            return False
        module = self._module(node)
        if isinstance(module, PASSING):
            self._numbers[node] = self._numbers[node.all_input_nodes[0]]
            return True
        if module is not None:
            found = local(module)
            if found is not None:
                self._add_local(node, found)
                return True
        function = self._pointwise(node, module)
        return function is not None and self._add_pointwise(node, function)

    def _pointwise(self, node: fx.Node, module: nn.Module | None) -> Function | None:
        """Return what a node does to each cell; `None` if that is not all it does."""
        if isinstance(module, NORMS) and not folds(module):
            return None
        if module is not None:
            known = POINTWISE_MODULES.get(type(module))
            return None if known is None else lambda x: known(module, x)
        table: Mapping[Any, Function] = (
            POINTWISE_METHODS if node.op == "call_method" else POINTWISE_FUNCTIONS
        )
        function = table.get(node.target)
        if function is None:
            return None
        nodes = tuple(node.all_input_nodes)

        def run(*values: Tensor) -> Any:
            given = dict(zip(nodes, values, strict=True))
            args = fx.map_arg(node.args, given.__getitem__)
            return function(*args, **fx.map_arg(node.kwargs, given.__getitem__))

        return run

    def _add_local(self, node: fx.Node, found: Local) -> None:
        number = self._numbers[node.all_input_nodes[0]]
        value = found.on_whole(self._values[number])
        step = Step((number,), found.on_whole, found, tuple(value.shape[2:]))
        self._add(step, value, node)

    def _add_pointwise(self, node: fx.Node, function: Function) -> bool:
        """Add a step, or lengthen the one before; return whether it keeps the grid."""
        inputs = tuple(self._numbers[each] for each in node.all_input_nodes)
        grids = {self._steps[each].grid for each in inputs}
        value = function(*(self._values[each] for each in inputs))
        if not isinstance(value, Tensor) or {tuple(value.shape[2:])} != grids:
            return False
        first = node.all_input_nodes[0]
        if len(inputs) == 1 and self._last[inputs[0]] is first and len(first.users) == 1:
            # a value that nobody else holds may be written over
            spared = torch.relu_ if _kind(node, self._modules) in RECTIFIERS else function
            self._steps[inputs[0]].tail.append(spared)
            self._values[inputs[0]], self._last[inputs[0]] = value, node
            self._numbers[node] = inputs[0]
        else:
            self._add(Step(inputs, function, grid=tuple(value.shape[2:])), value, node)
        return True

    def _add_foreign(self, node: fx.Node) -> None:
        """Add a step that is run as it stands, on whole rows."""
        nodes = tuple(each for each in node.all_input_nodes if each in self._numbers)
        inputs = tuple(self._numbers[each] for each in nodes)
        modules, constants = self._modules, self._constants

        def run(*values: Any) -> Any:
            given = {**constants, **dict(zip(nodes, values, strict=True))}
            return _call(node, modules, given)

        self._add(Step(inputs, run), run(*(self._values[each] for each in inputs)), node)

    def _add(self, step: Step, value: Any, node: fx.Node) -> None:
        self._numbers[node] = len(self._steps)
        self._steps.append(step)
        self._values.append(value)
        self._last.append(None if step.grid is None else node)

    def _grid(self, node: fx.Node) -> Place | None:
        number = self._numbers.get(node)
        return None if number is None else self._steps[number].grid

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._modules[str(node.target)] if node.op == "call_module" else None


def _call(node: fx.Node, modules: Mapping[str, nn.Module], given: Mapping[fx.Node, Any]) -> Any:
    """Run a node as the network itself does."""
    args = fx.map_arg(node.args, given.__getitem__)
    kwargs = fx.map_arg(node.kwargs, given.__getitem__)
    if node.op == "call_module":
        return modules[str(node.target)](*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)  # noqa: S101 - what is left are functions
    return node.target(*args, **kwargs)


def _kind(node: fx.Node, modules: Mapping[str, nn.Module]) -> Any:
    """Return what a node runs: a type of module, a function, or a method's name."""
    return type(modules[str(node.target)]) if node.op == "call_module" else node.target
