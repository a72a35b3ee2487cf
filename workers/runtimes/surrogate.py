"""A torch network in place of an ONNX session, for what a session cannot give.

It is the same graph, interpreted. Whether it says the same is tried when the
model is loaded, and once more on every image that is explained through it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from service.domain.network import Surrogate
from workers.endings import Ending
from workers.runtimes.graph.network import Network
from workers.runtimes.graph.operators.base import UnsupportedGraph
from workers.runtimes.graph.read import read_graph
from workers.runtimes.torch import TorchRuntime
from workers.runtimes.torch_probe import noise
from workers.tabular import Companions
from workers.tokens import Tokens

SHIFTS: Final = (0.0, 0.0, 0.5, -0.5, 1.0, -1.0)
"""Gray added to the noise images on which both must say the same."""


def surrogate(
    model: Any,
    shape: tuple[int, ...],
    layers: Mapping[str, str] | None,
    fixed_rows: int | None,
    *,
    channels_last: bool,
    companions: Companions,
    beside: Sequence[str],
    ending: Ending | None,
    tokens: Tokens | None,
) -> TorchRuntime:
    """Return a runtime of the same graph in torch.

    Parameters
    ----------
    model
        As `read_model` returned it.
    layers
        Names of layers that methods may use, each with its tensor in the
        graph; chosen, and named as their tensors, if not given.
    companions
        The numbers beside the image, if it takes any.
    beside
        Names of the graph's inputs for them, in their order.
    ending
        What is still to be made of outputs that do not count as they are.
    tokens
        Where the tokens lie, if it is a transformer's and the package says so.

    Raises
    ------
    UnsupportedGraph
        The graph cannot be interpreted.
    """
    names = {tensor: name for name, tensor in (layers or {}).items()}
    graph = read_graph(model)
    images = tuple(name for name in graph.inputs if name not in beside)
    if len(images) != 1:
        raise UnsupportedGraph("It has several inputs.")
    ordered = replace(graph, inputs=(*images, *beside))
    network = Network(ordered, names, channels_last=channels_last)
    companions.join(network)
    if ending is not None:
        ending.join(network)
    return TorchRuntime(
        network,
        shape,
        None if layers is None else list(layers),
        fixed_rows=fixed_rows,
        tokens=tokens,
        variables=companions.count,
    )


def difference(subject: TorchRuntime, run: Callable[[Tensor], Tensor], limit: Surrogate) -> float:
    """Return by how much the two differ at most on noise, as the limit counts it.

    Parameters
    ----------
    run
        Puts out what the original does for one row.

    Raises
    ------
    UnsupportedGraph
        They differ by more than the limit allows.
    """
    worst = 0.0
    for row, shift in zip(noise(subject, len(SHIFTS)).split(1), SHIFTS, strict=True):
        with torch.no_grad():
            ours: Tensor = subject.model(row + shift)
        theirs = run(row + shift)
        if ours.shape != theirs.shape:
            raise UnsupportedGraph("It puts out another shape when it is interpreted.")
        found = limit.difference(theirs.flatten().tolist(), ours.flatten().tolist())
        worst = max(worst, found)
    if worst == math.inf:
        raise UnsupportedGraph(
            "On noise it gives no numbers, interpreted or in onnxruntime: nothing can be compared."
        )
    if worst > limit.tolerance:
        raise UnsupportedGraph(
            f"Interpreted, it differs by {worst:.2g} of its outputs from what onnxruntime computes;"
            f" the manifest allows {limit.tolerance:g}."
        )
    return worst
