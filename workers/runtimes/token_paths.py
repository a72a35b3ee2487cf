"""Whether tokens reach one another through the attention that is seen, and in no other way.

An attention can be written in countless ways, and so can other mixing of tokens. So
nobody looks for them: all attention that is seen is set to let every token see just
itself, and then no token may depend on another.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from service.errors.models import InvalidPackage
from workers.runtimes.attention import Attentions
from workers.tokens import Tokens

UNSEEN: Final = (
    "Its tokens reach one another in another way than by attention that can be seen, which is "
    "torch's own attention functions, or a softmax over the last axis times the values."
)
READ_OTHERWISE: Final = (
    "Its score is not read off the class token alone, or the plain mean of the patches, as its "
    "layout says."
)
OTHER_READING: Final = (
    "'tokens' says that the score is read off {said}, and the network reads it off {found} alone:"
    " give 'read: {word}'."
)
READINGS: Final = {True: ("the class token", "class_token"), False: ("the patches' mean", "mean")}

EQUAL: Final = 1e-4
"""Share of the largest gradient within which rounding may part what is the same."""


class _Watched(TorchFunctionMode):
    """Cuts the graph at the first tensor of all tokens, and keeps that and the last."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self._sizes = sorted((1, tokens.count, tokens.width))
        self.first: Tensor | None = None
        self.last: Tensor | None = None

    @override
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor) or not result.requires_grad:
            return result
        if sorted(result.shape) != self._sizes:
            return result
        if self.first is None:
            self.first = result.detach().requires_grad_()
            result = self.first.clone()  # which the model may change in place
        self.last = result
        return result


def unseen_path(model: nn.Module, batch: Tensor, tokens: Tokens) -> str | None:
    """Return why the attention that is seen does not tell where scores come from, if so.

    Parameters
    ----------
    batch
        One row.

    Raises
    ------
    InvalidPackage
        A package says that the score is read off the class token where it is off the mean, or the
        other way round.
    """
    watched, batch = _Watched(tokens), batch.detach().requires_grad_()
    alone = torch.eye(tokens.count, dtype=batch.dtype, device=batch.device)
    # the second token also sees the first: were weights transposed, the first would see it
    alone[1:2, 0] = 1

    def take(_place: str, weights: object) -> Tensor | None:
        return alone.to(weights.dtype).expand_as(weights) if isinstance(weights, Tensor) else None

    with torch.enable_grad(), Attentions(take), watched:
        outputs: Tensor = model(batch)
    first, last = watched.first, watched.last
    if first is None or last is None or _gradient(outputs, batch).any():
        return UNSEEN
    if any(_mixed(first, last, place, tokens.count) for place in (0, tokens.count - 1)):
        return UNSEEN
    axis = last.shape.index(tokens.count)
    return _misread(_gradient(outputs, last).movedim(axis, 0), tokens)


def _mixed(first: Tensor, last: Tensor, place: int, count: int) -> bool:
    """Tell whether a token depends on another one of the first, along whichever axis they lie."""
    if place == 1:
        return False
    gradient = _gradient(last.select(last.shape.index(count), place), first)
    axes = [axis for axis, size in enumerate(first.shape) if size == count]
    return all(_elsewhere(gradient, axis, place) for axis in axes)


def _misread(gradient: Tensor, tokens: Tokens) -> str | None:
    """Return what is told if scores are not read as said, by their gradient at tokens, first axis.

    Raises
    ------
    InvalidPackage
        A package says so, and the other reading is right.
    """
    said = tokens.reads_class
    if _reads(gradient, tokens.prefix, of_class=said):
        return None
    if tokens.said and tokens.prefix and _reads(gradient, tokens.prefix, of_class=not said):
        (named, _), (found, word) = READINGS[said], READINGS[not said]
        why = OTHER_READING.format(said=named, found=found, word=word)
        raise InvalidPackage(why, pointer="/tokens/read")
    return READ_OTHERWISE


def _reads(gradient: Tensor, prefix: int, *, of_class: bool) -> bool:
    """Tell whether scores depend on the class token alone, or else on all patches alike."""
    if of_class:
        return bool(gradient.any()) and not _elsewhere(gradient, 0, 0)
    before, patches = gradient[:prefix], gradient[prefix:]
    spread, largest = patches.amax(0) - patches.amin(0), patches.abs().max()
    return bool(largest > 0 and spread.max() <= EQUAL * largest) and not before.any()


def _gradient(of: Tensor, at: Tensor) -> Tensor:
    """Return the gradient of a mix of values, which no norm makes constant."""
    mix = (of * torch.linspace(1, 2, of.numel()).to(of).view_as(of)).sum()
    (gradient,) = torch.autograd.grad(
        mix, [at], retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return gradient


def _elsewhere(gradient: Tensor, axis: int, place: int) -> bool:
    """Tell whether a gradient is anything at other places of an axis."""
    return bool(gradient.index_fill(axis, torch.tensor(place, device=gradient.device), 0).any())
