"""What methods share that hide whole segments of an image."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final, Self

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from workers.methods.base import Maps, Method, ModelFacts, cells, scored
from workers.methods.superpixels import grid_of
from workers.passes import Ability, Plan, Targets
from workers.rows import Beside, Masked, Rows
from workers.tabular import Tabular

Presence = Callable[[int, int], Tensor]
"""Which players rows ``start`` to ``stop`` show: bool, shape ``(rows, players)``."""

ROWS: Final = 1024
"""Rows whose values beside the image are made at once."""


@dataclass(frozen=True, eq=False)
class Players:
    """What is shown or hidden: the segments of an image, then the values beside it."""

    labels: Tensor
    """Segment of each pixel, shape ``spatial``."""

    tabular: Tabular | None = None
    """A value that is hidden is at its baseline."""

    @cached_property
    def segments(self) -> int:
        """How many of them are segments."""
        return int(self.labels.max()) + 1

    @property
    def count(self) -> int:
        """How many there are."""
        return self.segments + (0 if self.tabular is None else len(self.tabular.values))

    def beside(self, rows: Rows, presence: Presence) -> Rows:
        """Return rows of the image with the values beside them, if there are any."""
        if self.tabular is None:
            return rows
        shown = torch.cat(
            [
                presence(start, min(start + ROWS, rows.count))[:, self.segments :]
                for start in range(0, rows.count, ROWS)
            ]
        )
        return Beside(rows, torch.where(shown, self.tabular.values, self.tabular.baseline))


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
    partial_map: ClassVar = True

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

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, 1, *spatial)``."""
        return self.joint(image, targets, None)

    @override
    @abstractmethod
    def joint(self, image: Tensor, targets: Targets, tabular: Tabular | None) -> Plan[Maps]:
        """Attribute `image`, and the values beside it if it has any."""

    def most(self, shape: Sequence[int]) -> int:
        """Return the most segments that an image of shape ``(C, *spatial)`` is cut into."""
        return math.prod(grid_of(shape[1:], self.segments))

    def scored(
        self, image: Tensor, players: Players, presence: Presence, count: int, targets: Targets
    ) -> Plan[tuple[Tensor, bool]]:
        """Ask for the scores of `count` rows that show what `presence` says.

        Returns
        -------
        tuple[Tensor, bool]
            Float64 scores, shape ``(done, K)``, and whether time was up before
            all were done.
        """

        def masks(start: int, stop: int) -> Tensor:
            shown = presence(start, stop)[:, : players.segments].to(image)
            return shown[:, None, players.labels]

        rows = players.beside(Masked(image, self.baseline or 0.0, masks, count), presence)
        return (yield from scored(rows, targets, image))


def on_pixels(
    values: Tensor,
    players: Players,
    image: Tensor,
    extras: Sequence[dict[str, float]],
    *,
    partial: bool = False,
) -> Maps:
    """Return maps ``(K, 1, *spatial)`` with each segment's value on all of its pixels.

    Parameters
    ----------
    values
        Shape ``(K, players)``.
    extras
        The method's figures for each target; the number of segments is added.
    """
    of_image, shares = values.split([players.segments, players.count - players.segments], dim=1)
    segments = {"segments": float(players.segments)}
    return Maps(
        of_image[:, None, players.labels].to(image.dtype),
        cells(image.shape[1:], image.shape[1:]),
        tuple({**each, **segments} for each in extras),
        shares=None if players.tabular is None else shares,
        partial=partial,
    )


def shared_out(
    values: Tensor,
    ends: Tensor,
    players: Players,
    image: Tensor,
    done: Mapping[str, float],
    *,
    partial: bool,
) -> Maps:
    """Return maps that sum to the change in score: a segment's pixels share its value.

    Of a model that takes values beside the image, the sum is that of map and shares.

    Parameters
    ----------
    values
        Shape ``(K, players)``.
    ends
        Scores of the image and of the baseline, shape ``(2, K)``.
    done
        How much was done for it.
    """
    sizes = torch.ones(players.count).to(values)
    sizes[: players.segments] = torch.bincount(players.labels.flatten())
    figures = [
        {
            "score": score,
            "baseline_score": baseline,
            "score_change": score - baseline,
            "sum": total,
            "residual": total - (score - baseline),
            **done,
        }
        for score, baseline, total in zip(*ends.tolist(), values.sum(1).tolist(), strict=True)
    ]
    return on_pixels(values / sizes, players, image, figures, partial=partial)
