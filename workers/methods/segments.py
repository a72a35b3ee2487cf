"""What methods share that hide whole segments of an image."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from workers.methods.base import Maps, Method, ModelFacts, cells, zeros
from workers.methods.superpixels import grid_of
from workers.passes import Ability, Forward, Plan, Step, Targets, TimeUp
from workers.rows import Masked

Presence = Callable[[int, int], Tensor]
"""Which segments rows ``start`` to ``stop`` show: bool, shape ``(rows, segments)``."""


class SegmentMethod(Method):
    """A value for each segment, found by hiding segments.

    Parameters
    ----------
    segments
        About how many segments; a grid of nearly cubic cells decides. On the
        demo model 0.62 of the strongest of 100 segments lies in the finding,
        and 0.31 of the strongest of 49 (feature ablation, 8 images).
    baseline
        Value of hidden pixels, in model-input units; the model's own reference
        value if not given.
    """

    needs: ClassVar = frozenset({Ability.FORWARD})
    signed: ClassVar = True

    segments: int = Field(default=100, ge=2, le=512, description="About how many segments.")
    baseline: float | None = Field(
        default=None,
        ge=-1e6,
        le=1e6,
        description="Value of hidden pixels, in model-input units; default: the model's.",
    )

    @override
    def settled(self, model: ModelFacts) -> Self:
        """Return this method with the model's baseline where none was given."""
        baseline = model.baseline if self.baseline is None else self.baseline
        return self.model_copy(update={"baseline": baseline})

    def most(self, shape: Sequence[int]) -> int:
        """Return the most segments that an image of shape ``(C, *spatial)`` is cut into."""
        return math.prod(grid_of(shape[1:], self.segments))

    def scored(
        self, image: Tensor, labels: Tensor, presence: Presence, count: int, targets: Targets
    ) -> Plan[tuple[Tensor, bool]]:
        """Ask for the scores of `count` rows that show what `presence` says.

        Returns
        -------
        tuple[Tensor, bool]
            Float64 scores, shape ``(done, K)``, and whether time was up before
            all were done.
        """
        scores = zeros((count, len(targets)), image)
        done = 0

        def masks(start: int, stop: int) -> Tensor:
            shown: Tensor = presence(start, stop).to(image)[:, None, labels]
            return shown

        def fold(start: int, step: Step) -> None:
            nonlocal done
            assert step.scores is not None  # noqa: S101 - targets were asked for
            done = start + step.count
            scores[start:done] = step.scores

        try:
            yield Forward(Masked(image, self.baseline or 0.0, masks, count), targets, fold=fold)
        except TimeUp:
            return scores[:done], True
        return scores, False


def on_pixels(
    values: Tensor,
    labels: Tensor,
    image: Tensor,
    extras: Sequence[dict[str, float]],
    *,
    partial: bool = False,
) -> Maps:
    """Return maps ``(K, 1, *spatial)`` with each segment's value on all of its pixels.

    Parameters
    ----------
    values
        Shape ``(K, segments)``.
    extras
        The method's figures for each target; the number of segments is added.
    """
    segments = {"segments": float(values.shape[1])}
    return Maps(
        values[:, None, labels].to(image.dtype),
        cells(image.shape[1:], image.shape[1:]),
        tuple({**each, **segments} for each in extras),
        partial=partial,
    )


def shared_out(
    values: Tensor, ends: Tensor, labels: Tensor, image: Tensor, *, partial: bool
) -> Maps:
    """Return maps that sum to the change in score: a segment's pixels share its value.

    Parameters
    ----------
    values
        Shape ``(K, segments)``.
    ends
        Scores of the image and of the baseline, shape ``(2, K)``.
    """
    sizes = torch.bincount(labels.flatten(), minlength=values.shape[1])
    figures = [
        {
            "score": score,
            "baseline_score": baseline,
            "score_change": score - baseline,
            "sum": total,
            "residual": total - (score - baseline),
        }
        for score, baseline, total in zip(*ends.tolist(), values.sum(1).tolist(), strict=True)
    ]
    return on_pixels(values / sizes, labels, image, figures, partial=partial)
