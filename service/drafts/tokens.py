"""Where a graph's tokens lie, as far as it makes that plain."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

from service.domain.tokens import MOST_BEFORE
from service.drafts.base import Draft

TOLD: Final = (
    "The grid is that of the convolution that cuts patches; before its tokens the graph puts"
    " {before}. {read}"
)
READ: Final = "Say under 'read' what the score is read from, class_token or mean."
READ_MEAN: Final = "The score is taken to be read from their mean."
ASKED: Final = (
    "The graph has attention, as a transformer: say where its tokens lie ('prefix' and 'grid', or"
    " 'stages'), or methods of layers have the grid of its convolutions alone."
)
BEFORE_ASKED: Final = (
    " Its patches are a grid of {grid}; how many tokens come before theirs (a class token,"
    " registers) the graph does not make plain."
)
TOKEN_AXES: Final = frozenset({1, -2})
"""Of ``(N, tokens, width)``, the axis along which tokens are joined."""


def take_tokens(graph: Any, size: Sequence[int], draft: Draft) -> None:
    """Take over the layout of tokens, if patches and places tell it; ask for it otherwise.

    Parameters
    ----------
    size
        Of the image along each axis; empty if the graph does not tell it.
    """
    if not _attends(graph):
        return
    draft.notes["/tokens"] = ASKED
    for more, grid in _layouts(graph, size):
        if (more > 0) != _prepends(graph):
            cells = " x ".join(map(str, grid))
            draft.notes["/tokens"] = ASKED + BEFORE_ASKED.format(grid=cells)
            continue
        draft.fields["tokens"] = {"prefix": more, "grid": grid}
        before, read = (f"{more} more", READ) if more else ("none", READ_MEAN)
        del draft.notes["/tokens"]
        draft.looks["/tokens"] = TOLD.format(before=before, read=read)
        return


def _prepends(graph: Any) -> bool | None:
    """Tell whether something is joined before the patches' tokens; `None` if it is not plain."""
    joins = [each for each in graph.node if each.op_type == "Concat" and _joins_tokens(each)]
    if not joins:
        return False
    reached = _reached(graph)
    (first, *others) = joins
    from_patches = [name in reached for name in first.input]
    plain = not others and from_patches[-1] and not any(from_patches[:-1])
    return True if plain else None


def _joins_tokens(node: Any) -> bool:
    return any(each.name == "axis" and each.i in TOKEN_AXES for each in node.attribute)


def _reached(graph: Any) -> set[str]:
    """Return what is computed of a convolution; a shape of that is none of its values."""
    found: set[str] = set()
    for each in graph.node:
        if each.op_type == "Conv" or (each.op_type != "Shape" and found & {*each.input}):
            found.update(each.output)
    return found


def _attends(graph: Any) -> bool:
    """Tell whether something is multiplied by a softmax, as values are in attention."""
    shares = {each.output[0] for each in graph.node if each.op_type == "Softmax"}
    return any(each.op_type == "MatMul" and shares & {*each.input} for each in graph.node)


def _layouts(graph: Any, size: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Yield how many places more than patches are added to tokens, and the patches' grid."""
    tensors = {each.name: list(each.dims) for each in graph.initializer}
    added = {name for each in graph.node if each.op_type == "Add" for name in each.input}
    for width, patch in _patches(graph, tensors):
        if len(patch) != len(size) or any(k % n for k, n in zip(size, patch, strict=True)):
            continue
        grid = [edge // step for edge, step in zip(size, patch, strict=True)]
        for name in sorted(added & tensors.keys()):
            *rows, count, wide = tensors[name] if len(tensors[name]) > 1 else (0, 0)
            more = count - math.prod(grid)
            if rows in ([], [1]) and wide == width and 0 <= more <= MOST_BEFORE:
                yield more, grid


def _patches(graph: Any, tensors: dict[str, list[int]]) -> Iterator[tuple[int, list[int]]]:
    """Yield width and edges of convolutions that cut an image into patches."""
    for each in graph.node:
        told = {each.name: list(each.ints) for each in each.attribute}
        edges = told.get("kernel_shape", [])
        weights = tensors.get(each.input[1]) if each.op_type == "Conv" else None
        if weights and edges == told.get("strides") and min(edges) > 1:
            yield weights[0], edges
