"""A gradient integrated along a path in parts, each as finely as it needs."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from service.errors.models import NonFiniteScore
from workers.methods.base import zeros
from workers.passes import Fold, Step
from workers.rows import INPUT, VALUES, Beside, Blend, Rows
from workers.tabular import Tabular

PARTS: Final = 8
"""Equal parts of the path, each with a sum of its own in memory."""

ROUND: Final = 4
"""Points that are added at once, or as many as one part needs."""

SETTLED: Final = 0.5
"""Share of the tolerance that may be left to the parts that are not refined."""

SMALLEST: Final = torch.finfo(torch.float64).tiny


class Parts:
    r"""The integral of :math:`\nabla f` from a baseline to an image.

    Each part of the path is integrated by the trapezoidal rule over intervals of its
    own number. How far a part is off is known: its integral, multiplied with the way
    from baseline to image, must be the change of the score between its ends. The parts
    that are off most get twice as many intervals, whose other half of points are those
    of before.

    Memory does not grow with the points: there is one sum for each end of a part, one
    for all points inside it, and one for those of the part that is being refined. Until
    all of these are in, they do not count.

    Parameters
    ----------
    image
        Shape ``(C, *spatial)``.
    baseline
        Value of the reference image.
    targets
        Scores whose gradients are integrated, ``K``.
    tabular
        The values beside the image, which go the way with it.
    """

    def __init__(
        self, image: Tensor, baseline: float, targets: int, tabular: Tabular | None = None
    ) -> None:
        self._image, self._baseline, self._tabular = image, baseline, tabular
        ways = [(image - baseline).flatten(), *(() if tabular is None else (tabular.way,))]
        self._way = torch.cat(ways)
        self._sums = zeros((2 * PARTS + 1, targets, len(self._way)), image)
        self._new = zeros((targets, len(self._way)), image)
        self._intervals = [1] * PARTS
        self.scores = zeros((PARTS + 1, targets), image)
        """At the ends of the parts, from the baseline to the image, shape ``(PARTS + 1, K)``."""

    @property
    def points(self) -> int:
        """Points of the path so far."""
        return 1 + sum(self._intervals)

    @property
    def ends(self) -> tuple[float, ...]:
        """The ends of the parts, from 0 (baseline) to 1 (image)."""
        return tuple(k / PARTS for k in range(PARTS + 1))

    def take_ends(self, start: int, step: Step) -> None:
        """Take in gradients and scores at some of the ends."""
        assert step.scores is not None  # noqa: S101 - targets were asked for
        self.scores[start : start + step.count] = step.scores
        for end, row in enumerate(self._rows_of(step), start):
            self._sums[end].add_(row)

    def rows(self, weights: tuple[float, ...]) -> Rows:
        """Return points of the path, by their shares of the image."""
        return on_path(self._image, self._baseline, weights, self._tabular)

    @property
    def at(self) -> tuple[str, ...]:
        """Places whose gradients are taken in."""
        return (INPUT,) if self._tabular is None else (INPUT, VALUES)

    def between(self, chosen: Sequence[int]) -> tuple[float, ...]:
        """Return the points in the middle of the intervals of some parts."""
        return tuple(
            (part + (k + 0.5) / self._intervals[part]) / PARTS
            for part in chosen
            for k in range(self._intervals[part])
        )

    def take_between(self, chosen: Sequence[int]) -> Fold:
        """Return what takes in the gradients at the points `between`."""
        parts = [part for part in chosen for _ in range(self._intervals[part])]

        def fold(start: int, step: Step) -> None:
            for place, row in enumerate(self._rows_of(step), start):
                self._new.add_(row)
                if parts[place + 1 : place + 2] != [parts[place]]:
                    self._halve(parts[place])

        return fold

    def _halve(self, part: int) -> None:
        """Count the intervals of a part twice, now that all of their middles are known."""
        self._sums[PARTS + 1 + part].add_(self._new)
        self._new.zero_()
        self._intervals[part] *= 2

    def integral(self) -> tuple[Tensor, Tensor | None]:
        """Return the integral times the way, in float64.

        Returns
        -------
        tuple
            Of the image, shape ``(K, C, *spatial)``, and of the values beside it, if there
            are any, shape ``(K, variables)``.
        """
        integral = torch.tensordot(self._weights(), self._sums, dims=1) * self._way
        of_image, shares = integral.tensor_split([self._image.numel()], dim=1)
        values = of_image.reshape(-1, *self._image.shape)
        return values, None if self._tabular is None else shares

    def coarsest(self, tolerance: float, most: int) -> list[int]:
        """Return the parts to refine, none if the tolerance is met or points would be too many.

        Parameters
        ----------
        tolerance
            Largest difference of the integral's sum and the change of the score, as a
            share of that change.
        most
            Points that there may be in all.
        """
        change = (self.scores[-1] - self.scores[0]).abs().clamp(min=SMALLEST)
        off = self._residuals() / change
        missed = off.sum(0).abs() > tolerance
        if not missed.any():
            return []
        worst = off[:, missed].abs().amax(1)
        order = worst.argsort(descending=True).tolist()
        chosen: list[int] = []
        added = 0
        for place, part in enumerate(order):
            rest = float(worst[order[place:]].sum())
            size = self._intervals[part]
            if chosen and (rest <= SETTLED * tolerance or added + size > ROUND):
                break
            if self.points + added + size <= most:
                chosen.append(part)
                added += size
        return chosen

    def _rows_of(self, step: Step) -> Tensor:
        """Return gradients as they are summed, shape ``(rows, K, values)``.

        Raises
        ------
        NonFiniteScore
            A gradient is no number.
        """
        flat = torch.cat([step.gradients[place].flatten(2) for place in self.at], 2)
        if not bool(torch.isfinite(flat).all()):
            raise NonFiniteScore(
                "The model's gradient is not finite at a point of the path, most likely at its end,"
                " the constant baseline. Give another 'baseline', or 'steps' in place of a"
                " 'tolerance': their points lie between the ends."
            )
        return flat

    def _weights(self) -> Tensor:
        """Return the weight of each sum: of the ends, then of what lies inside each part."""
        inside = self._sums.new_tensor([1 / (PARTS * each) for each in self._intervals])
        ends = self._sums.new_zeros(PARTS + 1)
        ends[:-1] += inside / 2
        ends[1:] += inside / 2
        return torch.cat([ends, inside])

    def _residuals(self) -> Tensor:
        """Return by how much each part's integral differs from its change, shape ``(PARTS, K)``."""
        slopes = (self._sums * self._way).sum(2)
        ends, inside = slopes.split([PARTS + 1, PARTS])
        weights = self._weights()[PARTS + 1 :, None]
        integrals: Tensor = weights * ((ends[:-1] + ends[1:]) / 2 + inside)
        return integrals - self.scores.diff(dim=0)


def on_path(
    image: Tensor, baseline: float, weights: tuple[float, ...], tabular: Tabular | None
) -> Rows:
    """Return points between the baseline and the image, the values beside it on the same way."""
    rows = Blend(image, baseline, weights)
    return rows if tabular is None else Beside(rows, tabular.along(weights))
