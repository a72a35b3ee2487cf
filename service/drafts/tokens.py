"""Where a graph's tokens lie, as far as it makes that plain."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

from service.domain.tokens import MOST_BEFORE
from service.drafts.base import Draft

TOLD: Final = (
    "The grid is that of the convolution that cuts patches, and {name!r} has places for {prefix}"
    " more: look whether these come before the patches. 'read' says what the score is read from,"
    " class_token or mean."
)
ASKED: Final = (
    "The graph has attention, as a transformer: say where its tokens lie ('prefix' and 'grid', or"
    " 'stages'), or methods of layers have the grid of its convolutions alone."
)


def take_tokens(graph: Any, size: Sequence[int], draft: Draft) -> None:
    """Take over the layout of tokens, if patches and places tell it; ask for it otherwise.

    Parameters
    ----------
    size
        Of the image along each axis; empty if the graph does not tell it.
    """
    if not _attends(graph):
        return
    for name, prefix, grid in _layouts(graph, size):
        draft.fields["tokens"] = {"prefix": prefix, "grid": grid}
        draft.notes["/tokens"] = TOLD.format(name=name, prefix=prefix)
        return
    draft.notes["/tokens"] = ASKED


def _attends(graph: Any) -> bool:
    """Tell whether something is multiplied by a softmax, as values are in attention."""
    shares = {each.output[0] for each in graph.node if each.op_type == "Softmax"}
    return any(each.op_type == "MatMul" and shares & {*each.input} for each in graph.node)


def _layouts(graph: Any, size: Sequence[int]) -> Iterator[tuple[str, int, list[int]]]:
    """Yield what is added to tokens of patches, how many it has too many, and the patches' grid."""
    tensors = {each.name: list(each.dims) for each in graph.initializer}
    added = {name for each in graph.node if each.op_type == "Add" for name in each.input}
    for width, patch in _patches(graph, tensors):
        if len(patch) != len(size) or any(k % n for k, n in zip(size, patch, strict=True)):
            continue
        grid = [edge // step for edge, step in zip(size, patch, strict=True)]
        for name in sorted(added & tensors.keys()):
            *rows, count, wide = tensors[name] if len(tensors[name]) > 1 else (0, 0)
            prefix = count - math.prod(grid)
            if rows in ([], [1]) and wide == width and 0 <= prefix <= MOST_BEFORE:
                yield name, prefix, grid


def _patches(graph: Any, tensors: dict[str, list[int]]) -> Iterator[tuple[int, list[int]]]:
    """Yield width and edges of convolutions that cut an image into patches."""
    for each in graph.node:
        told = {each.name: list(each.ints) for each in each.attribute}
        edges = told.get("kernel_shape", [])
        weights = tensors.get(each.input[1]) if each.op_type == "Conv" else None
        if weights and edges == told.get("strides") and min(edges) > 1:
            yield weights[0], edges
