"""Occlusion: how far the score falls when a window is covered."""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, Maps, Method, ModelFacts, spread, zeros
from workers.passes import Ability, Cost, Forward, Plan, Step, Targets
from workers.rows import Box, Clean, Patched


@METHODS.register("occlusion")
class Occlusion(Method):
    r"""Mean fall of the score over the windows that cover a place.

    .. math:: A(u) = \frac{1}{|W_u|} \sum_{w \in W_u} f(x) - f(x_{w \to b})

    Windows of edge `window` stand at multiples of `stride` along each axis
    until one reaches the image's far edge, where it is cut off. The fall is
    constant on cells of edge gcd(`window`, `stride`), and the map keeps one
    value for each such cell.

    Parameters
    ----------
    window
        Edge of the covering window, in pixels of the model's input.
    stride
        Distance between windows, in the same pixels; at most `window`, so that
        every place is covered. Half of `window` if not given.
    baseline
        Value inside the window, in model-input units; the model's own
        reference value if not given.

    References
    ----------
    Zeiler, Fergus (2014). Visualizing and understanding convolutional
    networks. ECCV. arXiv:1311.2901, section 4.2.
    """

    title: ClassVar = "Occlusion"
    needs: ClassVar = frozenset({Ability.FORWARD})
    signed: ClassVar = True
    paper: ClassVar = "Zeiler, Fergus (2014), arXiv:1311.2901, section 4.2"
    cost: ClassVar = "1 + (size / stride) to the number of axes forward rows"
    weaknesses: ClassVar = (
        "A covered window is itself an unusual picture, to which the model may react. "
        "Findings much larger or smaller than the window are missed."
    )

    window: int = Field(default=16, ge=1, le=512, description="Edge in model-input pixels.")
    stride: int | None = Field(
        default=None,
        ge=1,
        le=512,
        description="Distance of windows in model-input pixels; default: half the window.",
    )
    baseline: float | None = Field(
        default=None,
        ge=-1e6,
        le=1e6,
        description="Value inside the window, in model-input units; default: the model's.",
    )

    @override
    def settled(self, model: ModelFacts) -> Self:
        """Return this method with the model's baseline, and the stride, where none was given."""
        baseline = model.baseline if self.baseline is None else self.baseline
        return self.model_copy(update={"baseline": baseline, "stride": self.step})

    @model_validator(mode="after")
    def _leaves_no_gaps(self) -> Self:
        if self.step > self.window:
            raise ValueError("stride must be at most window, so that every place is covered")
        return self

    @property
    def step(self) -> int:
        """Distance between windows, in pixels."""
        return max(1, self.window // 2) if self.stride is None else self.stride

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return one row for each window and one for the image."""
        return Cost(forward_rows=1 + math.prod(len(list(self._spans(n))) for n in shape[1:]))

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, 1, *grid)`` of cells."""
        cell = math.gcd(self.window, self.step)
        grid = [math.ceil(size / cell) for size in image.shape[1:]]
        boxes = tuple(product(*(self._spans(size) for size in image.shape[1:])))
        covered = zeros((len(targets), *grid), image)
        count = torch.zeros(grid, dtype=torch.float64, device=image.device)

        def fold(start: int, step: Step) -> None:
            assert step.scores is not None  # noqa: S101 - targets were asked for
            for box, scores in zip(boxes[start : start + step.count], step.scores, strict=True):
                covered[(slice(None), *_cells(box, cell))].add_(_column(scores, len(grid)))
                count[_cells(box, cell)].add_(1)

        clean, _ = yield (
            Forward(Clean(image), targets),
            Forward(Patched(image, boxes, self.baseline or 0.0), targets, fold=fold),
        )
        fall = _column(clean.scores[0].double(), len(grid)) - covered / count
        return Maps(fall.unsqueeze(1).to(image.dtype), spread([cell] * len(grid)))

    def _spans(self, size: int) -> Iterator[slice]:
        """Iterate over the windows along one axis of `size` pixels."""
        last = max(0, math.ceil((size - self.window) / self.step))
        for k in range(last + 1):
            yield slice(k * self.step, min(k * self.step + self.window, size))


def _column(scores: Tensor, axes: int) -> Tensor:
    """Return one value for each target as shape ``(K, 1, ...)``, to stand over a grid."""
    return scores.reshape(-1, *(1,) * axes)


def _cells(box: Box, cell: int) -> Box:
    """Return the cells that a box of pixels covers."""
    return tuple(slice(span.start // cell, math.ceil(span.stop / cell)) for span in box)
