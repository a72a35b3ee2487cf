"""Copies of a model with shuffled weights: of all parameters, or of the head alone."""

import copy
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

SEEDS: Final = (1, 2, 3, 4)
"""One shuffle of the weights each: similarities differ by up to 0.14 between shuffles."""


SHIFTS: Final = ("AddBackward", "SubBackward")
"""Operations that add: where they add parameters alone, all gradients stay the same."""


def shuffled(model: nn.Module, seed: int, names: frozenset[str] | None = None) -> nn.Module:
    """Return a copy in which the values of each parameter have changed places.

    A permutation keeps each parameter's distribution. It is drawn on the CPU,
    so that it is the same whatever the model runs on.

    Parameters
    ----------
    model
        It stays as it is.
    names
        Parameters to be shuffled; all of them if not given.
    """
    changed = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in changed.named_parameters():
        if names is None or name in names:
            flat = parameter.detach().flatten()
            order = torch.randperm(len(flat), generator=generator).to(flat.device)
            with torch.no_grad():
                parameter.copy_(flat[order].view_as(parameter))
    return changed


def head_of(model: nn.Module, image: Tensor) -> frozenset[str]:
    """Return the names of the parameters of the last operations that have any.

    They are looked for in the graph of one forward pass, from the outputs back:
    an operation has parameters when one of its arguments leads to parameters
    and not to the image. So a head of many branches is found whole. Behind an
    operation that adds parameters the search goes on, for they move no map; a
    factor whose values are all equal is passed over: no shuffle changes it.

    Parameters
    ----------
    model
        It is not changed: a copy runs.
    image
        Shape ``(C, *spatial)``, of the model's floating type.

    Returns
    -------
    frozenset
        Empty when the outputs have no graph.
    """
    subject = copy.deepcopy(model).requires_grad_()
    row = image[None].clone().requires_grad_()
    with torch.enable_grad():
        outputs: Tensor = subject(row)
    if outputs.grad_fn is None:
        return frozenset()
    names = {
        id(parameter): name
        for name, parameter in subject.named_parameters()
        if bool((parameter != parameter.flatten()[0]).any())
    }
    return _last(outputs.grad_fn, names, id(row))


def _last(end: Node, names: dict[int, str], image: int) -> frozenset[str]:
    """Walk back from `end`; stop where parameters come in."""
    below = _below(end, names, image)
    found: set[str] = set()
    level = [end]
    seen = {end}
    while level:
        node = level.pop()
        parents = list(_parents(node))
        own = [below[p] for p in parents if below[p] and image not in below[p]]
        if own:
            found |= {names[each] for parameters in own for each in parameters}
            if not node.name().startswith(SHIFTS):
                continue
        fresh = [p for p in parents if p not in seen]
        seen.update(fresh)
        level += fresh
    return frozenset(found)


def _below(end: Node, names: dict[int, str], image: int) -> dict[Node, frozenset[int]]:
    """Return for each node the parameters, and the image, that its value is made of."""
    known: dict[Node, frozenset[int]] = {}
    stack = [end]
    while stack:
        node = stack[-1]
        parents = list(_parents(node))
        missing = [parent for parent in parents if parent not in known]
        if missing:
            stack += missing
            continue
        stack.pop()
        leaf = getattr(node, "variable", None)
        own = {id(leaf)} & (names.keys() | {image})
        known[node] = frozenset(own).union(*(known[parent] for parent in parents))
    return known


def _parents(node: Node) -> Iterator[Node]:
    """Iterate over the nodes whose values a node takes in."""
    return (parent for parent, _ in node.next_functions if parent is not None)
