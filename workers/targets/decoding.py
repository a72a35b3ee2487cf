"""A detector's outputs as boxes and scores, by the manifest's words for them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from typing_extensions import override

from service.domain.boxes import BoxDecoding
from workers.device import sent

CERTAIN: Final = 1e-6
"""Probabilities nearer to 0 or 1 than this count as this far, so that their log odds are finite."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """Reads outputs ``(N, ...)`` of one model as `P` proposals, each with a box and `K` scores.

    Parameters
    ----------
    decoding
        The manifest's words.
    classes
        Number of classes, `K`.
    extent
        Rows and columns of the model's input; slices first, of a volume. A box is as many
        numbers twice, starts before ends, of the axes in this order.
    inner
        Where the image lies in the input along each axis, start and end, if it was padded.
    """

    decoding: BoxDecoding
    classes: int
    extent: tuple[int, ...]
    inner: tuple[tuple[int, int], ...] | None = None

    @override
    def __hash__(self) -> int:
        """Hash by value."""
        return hash((self.decoding, self.classes, self.extent, self.inner))

    def fault(self, shape: Sequence[int]) -> tuple[list[int], list[int]] | None:
        """Return shape expected and found of one row's outputs, if they are none of these words.

        A number of proposals that may be any is -1.
        """
        decoding, channels = self.decoding, sum(self._widths.values())
        if decoding.layout == "grid":
            grid = self.grids[0] if decoding.strides else (-1,) * len(self.extent)
            expected = [channels, *grid]
        else:
            anchors = [len(each) for each in decoding.anchors] or [1] * len(self.grids)
            pairs = zip(self.grids, anchors, strict=True)
            proposals = sum(math.prod(grid) * each for grid, each in pairs) or -1
            expected = [proposals, channels]
            expected = expected if decoding.layout == "rows" else expected[::-1]
        fits = len(shape) == len(expected) and all(
            axis in (-1, size) for axis, size in zip(expected, shape, strict=True)
        )
        return None if fits else (expected, list(shape))

    def proposals(self, outputs: Tensor) -> Tensor:
        """Return outputs ``(N, ...)`` as ``(N, P, channels)``."""
        if self.decoding.layout == "rows":
            return outputs
        return outputs.flatten(2).transpose(1, 2)

    def logits(self, proposals: Tensor) -> Tensor:
        """Return the log odds of each class's score, ``(N, P, K)``.

        Where a sigmoid makes the score these are the network's own logits.
        """
        classes = self._part(proposals, "classes")
        first = int(self.decoding.background == "first")
        own = classes[..., first : first + self.classes]
        if self.decoding.scores == "softmax":
            every = range(first, first + self.classes)
            return torch.stack([_against_others(classes, each) for each in every], -1)
        if self.decoding.scores == "probabilities":
            return torch.logit(own * self._objectness(proposals), eps=CERTAIN)
        if "objectness" not in self._widths:
            return own
        together = logsigmoid(own) + logsigmoid(self._part(proposals, "objectness"))
        together = together.clamp(max=-CERTAIN)
        return together - torch.log(-torch.expm1(together))

    def objectness(self, proposals: Tensor) -> Tensor:
        """Return the log odds of each proposal's objectness, ``(N, P)``, if there is one."""
        own = self._part(proposals, "objectness")[..., 0]
        return own if self.decoding.scores == "sigmoid" else torch.logit(own, eps=CERTAIN)

    def boxes(self, proposals: Tensor) -> Tensor:
        """Return boxes in input pixels, cut to the image; of `A` axes ``(N, P, 2 * A)``."""
        numbers = self._part(proposals, "box")
        first, second = numbers.unflatten(-1, (2, self.decoding.rank)).unbind(-2)
        if self.decoding.axes.startswith("x"):
            first, second = first.flip(-1), second.flip(-1)
        low, high = self._corners(first, second)
        inner = self.inner or tuple((0, length) for length in self.extent)
        starts, ends = (_constant(each, proposals) for each in zip(*inner, strict=True))
        low, high = (each.maximum(starts).minimum(ends) for each in (low, high))
        return torch.cat([low, high], -1)

    @property
    def grids(self) -> tuple[tuple[int, ...], ...]:
        """Cells of each grid of proposals along each axis."""
        return tuple(
            tuple(-(-length // step) for length, step in zip(self.extent, steps, strict=True))
            for steps in self.decoding.steps
        )

    def _corners(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return near and far corners in input pixels, each ``(N, P, A)``."""
        form = self.decoding.form
        if form == "anchor_deltas":
            places, _, anchors = _standing(self, first.device, first.dtype)
            center, size = places + first * anchors, anchors * second.exp()
            return center - size / 2, center + size / 2
        scale = self._scale(first)
        first, second = first * scale, second * scale
        if form == "corners":
            return first, second
        if form == "center_size":
            return first - second / 2, first + second / 2
        places, _, _ = _standing(self, first.device, first.dtype)
        if form == "distances":
            return places - first, places + second
        return places + first - second / 2, places + first + second / 2

    def _scale(self, like: Tensor) -> Tensor:
        """Return how many input pixels a box's numbers count in, to be broadcast."""
        match self.decoding.unit:
            case "pixels":
                return like.new_ones(1)
            case "shares":
                return _constant(self.extent, like)
            case "strides":
                return _standing(self, like.device, like.dtype)[1]

    @property
    def _widths(self) -> dict[str, int]:
        """How many channels each part has."""
        classes = self.classes + (self.decoding.background is not None)
        widths = {"box": 2 * self.decoding.rank, "objectness": 1, "classes": classes}
        return {part: widths[part] for part in self.decoding.channels}

    def _part(self, proposals: Tensor, part: str) -> Tensor:
        """Return the channels of one part."""
        widths = self._widths
        parts: Sequence[Tensor] = proposals.split(list(widths.values()), -1)
        return parts[list(widths).index(part)]

    def _objectness(self, proposals: Tensor) -> Tensor | float:
        return self._part(proposals, "objectness") if "objectness" in self._widths else 1.0


def overlaps(boxes: Tensor, other: Tensor) -> Tensor:
    """Return intersection over union of boxes ``(..., 2 * A)`` with others that broadcast."""
    (low, high), (other_low, other_high) = corners(boxes), corners(other)
    low, high = torch.maximum(low, other_low), torch.minimum(high, other_high)
    shared = (high - low).clamp(min=0).prod(-1)
    union = _extent(boxes) + _extent(other) - shared
    return torch.where(union > 0, shared / union, 0.0)


def corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return starts and ends of boxes ``(..., 2 * A)``, each ``(..., A)``."""
    low, high = boxes.tensor_split(2, -1)
    return low, high


def kept(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> list[int]:
    """Return which boxes are left by greedy suppression, the best first, `most` of them.

    Parameters
    ----------
    boxes, scores
        Of one class, ``(P, 2 * A)`` and ``(P,)``.
    overlap
        A box that overlaps a better one by more than this is dropped.
    """
    order = scores.argsort(descending=True, stable=True)
    found: list[int] = []
    while len(order) and len(found) < most:
        best = order[0]
        found.append(int(best))
        order = order[1:][overlaps(boxes[order[1:]], boxes[best]) <= overlap]
    return found


@lru_cache(maxsize=16)
def _standing(
    decoder: Decoder, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return where proposals stand, their strides and their anchors, each ``(P, A)``."""
    decoding = decoder.decoding
    anchors = decoding.anchors or (((0.0,) * decoding.rank,),) * len(decoding.steps)
    places, strides, sizes = [], [], []
    for each, grid, shapes in zip(decoding.steps, decoder.grids, anchors, strict=True):
        pairs = zip(grid, each, strict=True)
        lines = [(torch.arange(count) + decoding.place) * step for count, step in pairs]
        cells = torch.cartesian_prod(*lines)
        places.append(cells.repeat_interleave(len(shapes), 0))
        strides.append(torch.tensor([each]).expand(len(cells) * len(shapes), -1))
        sizes.append(torch.tensor(shapes).repeat(len(cells), 1))
    every = (torch.cat(parts) for parts in (places, strides, sizes))
    placed, steps, anchored = (sent(whole, device, dtype) for whole in every)
    return placed, steps, anchored


def _constant(values: Sequence[float], like: Tensor) -> Tensor:
    return sent(torch.tensor(values, dtype=torch.float64), like.device, like.dtype)


def _against_others(classes: Tensor, index: int) -> Tensor:
    """Return the log odds of one class under a softmax over all, ``(N, P)``."""
    others = torch.cat([classes[..., :index], classes[..., index + 1 :]], -1)
    return classes[..., index] - others.logsumexp(-1)


def _extent(boxes: Tensor) -> Tensor:
    """Return the area of boxes, or the volume."""
    low, high = corners(boxes)
    return (high - low).clamp(min=0).prod(-1)
