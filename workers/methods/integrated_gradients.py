"""Integrated gradients: the path integral of the gradient from a baseline."""

from collections.abc import Sequence
from typing import ClassVar, Final, Self

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, Maps, Method, ModelFacts, add_rows, cells, zeros
from workers.passes import Ability, Cost, Forward, Gradient, Plan, Step, Targets
from workers.rows import INPUT, Blend, Clean

REFINEMENT: Final = 3
"""Parts made of one part: the smallest number of which the middle keeps its midpoint."""


@METHODS.register("integrated_gradients")
class IntegratedGradients(Method):
    r"""Integrated gradients on a straight path from a constant baseline.

    .. math:: A = (x - b) \odot \frac{1}{n} \sum_{k=1}^{n}
              \nabla f\!\left(b + \tfrac{k - 1/2}{n}(x - b)\right)

    The midpoint rule is used: it is exact for quadratic `f` and needs no end
    points. The maps sum to ``f(x) - f(b)`` up to the quadrature error, which is
    returned for each target: `score`, `baseline_score`, their difference
    `score_change`, the map's `sum`, the `residual`, sum minus change, and the
    `steps` taken.

    With a tolerance, points are tripled until it is met for every target, or
    until they would be more than `max_steps`: of three times as many midpoints
    every third is one already, so that no gradient is asked for twice.

    Parameters
    ----------
    steps
        Points on the path, `n`, or those to begin with. Cost grows with it in
        proportion.
    tolerance
        Largest residual allowed, as a share of the change in score; points are
        not added if it is not given.
    max_steps
        Most points on the path when there is a tolerance.
    baseline
        Value of the reference image after preprocessing, in model units; the
        model's own reference value if not given.

    References
    ----------
    Sundararajan, Taly, Yan (2017). Axiomatic attribution for deep networks.
    ICML. arXiv:1703.01365, eq. 3.
    """

    title: ClassVar = "Integrated gradients"
    needs: ClassVar = frozenset({Ability.INPUT_GRADIENT})
    signed: ClassVar = True
    paper: ClassVar = "Sundararajan, Taly, Yan (2017), arXiv:1703.01365, eq. 3"
    cost: ClassVar = "steps gradient rows, up to max_steps with a tolerance; 2 forward rows"
    weaknesses: ClassVar = (
        "The map depends on the baseline: places that look like it get nothing. "
        "The factor (x - b) draws the image's own edges even for an untrained model."
    )

    steps: int = Field(default=32, ge=1, le=512, description="Points on the path.")
    tolerance: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the score's change by which the map's sum may differ from it; "
        "points are tripled until it is met. Default: points are not added.",
    )
    max_steps: int = Field(
        default=512, ge=1, le=4096, description="Most points when there is a tolerance."
    )
    baseline: float | None = Field(
        default=None,
        ge=-1e6,
        le=1e6,
        description="Value of the reference image, in model-input units; default: the model's.",
    )

    @override
    def settled(self, model: ModelFacts) -> Self:
        """Return this method with the model's baseline where none was given."""
        return self if self.baseline is not None else self._with_baseline(model.baseline)

    def _with_baseline(self, baseline: float) -> Self:
        return self.model_copy(update={"baseline": baseline})

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return the two ends of the path and as many gradient rows as it may take."""
        steps = self.steps
        while self._may_refine(steps):
            steps *= REFINEMENT
        return Cost(forward_rows=2, gradient_rows=steps, exact=steps == self.steps)

    def _may_refine(self, steps: int) -> bool:
        return self.tolerance is not None and steps * REFINEMENT <= self.max_steps

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, C, *spatial)``."""
        baseline = self.baseline or 0.0
        total = zeros((len(targets), *image.shape), image)

        def fold(_start: int, step: Step) -> None:
            add_rows(total, step.gradients[INPUT])

        end, start, _ = yield (
            Forward(Clean(image), targets),
            Forward(Blend(image, baseline, (0.0,)), targets),
            Gradient(Blend(image, baseline, midpoints(self.steps)), targets, fold=fold),
        )
        steps, change = self.steps, (end.scores[0] - start.scores[0]).double()
        while self._may_refine(steps) and self._misses(total * (image - baseline) / steps, change):
            yield Gradient(Blend(image, baseline, added(steps)), targets, fold=fold)
            steps *= REFINEMENT
        maps = total * (image - baseline) / steps
        extras = tuple(
            _figures(*figures, steps)
            for figures in zip(
                end.scores[0].tolist(),
                start.scores[0].tolist(),
                maps.flatten(1).sum(1).tolist(),
                strict=True,
            )
        )
        return Maps(maps.to(image.dtype), cells(image.shape[1:], image.shape[1:]), extras)

    def _misses(self, maps: Tensor, change: Tensor) -> bool:
        """Tell whether a map ``(C, *spatial)`` of some target does not add up to its change."""
        residual = (maps.flatten(1).sum(1) - change).abs()
        return self.tolerance is not None and bool((residual > self.tolerance * change.abs()).any())


def midpoints(steps: int) -> tuple[float, ...]:
    """Return the midpoints of equal parts of the path from 0 (baseline) to 1 (image)."""
    return tuple((k + 0.5) / steps for k in range(steps))


def added(steps: int) -> tuple[float, ...]:
    """Return what `REFINEMENT` times as many midpoints have beside those of `steps` parts."""
    finer = midpoints(steps * REFINEMENT)
    return tuple(point for k, point in enumerate(finer) if k % REFINEMENT != REFINEMENT // 2)


def _figures(score: float, baseline_score: float, total: float, steps: int) -> dict[str, float]:
    """Return what one target's map should sum to, and what it does."""
    change = score - baseline_score
    return {
        "score": score,
        "baseline_score": baseline_score,
        "score_change": change,
        "sum": total,
        "residual": total - change,
        "steps": float(steps),
    }
