"""Kernel SHAP: Shapley values of segments by weighted least squares."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar, Final

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, Maps
from workers.methods.segments import Players, SegmentMethod, shared_out
from workers.methods.superpixels import segmented
from workers.passes import Cost, Plan, Targets, TimeUp
from workers.tabular import Tabular

ENDS: Final = 2
"""Rows that come first: everything shown, and nothing."""

SMALL: Final = 1e-9
"""Share of the largest eigenvalue under which a direction counts as not told apart."""


@METHODS.register("kernel_shap")
class KernelShap(SegmentMethod):
    r"""Shapley values of segments: the linear model of presence that fits the scores best.

    .. math:: \min_\phi \sum_z w(|z|) \left(f(x_z) - f(b) - z^T \phi\right)^2
              \quad \text{with} \quad \sum_i \phi_i = f(x) - f(b), \qquad
              w(s) = \frac{M - 1}{\binom{M}{s}\, s\, (M - s)}

    over coalitions `z` of `M` segments; `x_z` shows the segments of `z` and the
    baseline elsewhere. Coalitions of one segment and of all but one weigh most
    and are taken whole, then those of two, and so on while `samples` lasts; the
    rest is drawn by weight, each coalition with its complement. When `samples`
    covers all :math:`2^M - 2`, the values are exactly Shapley's. The pixels of a
    segment share its value, so that the map sums to ``f(x) - f(b)``.

    Where coalitions are too few to tell segments apart, these get equal
    shares. When time is up, the fit to the coalitions done so far is returned,
    marked as partial.

    Parameters
    ----------
    segments
        About how many segments, `M`.
    samples
        Most coalitions that are tried, an even number; well above twice
        `segments`.
    baseline
        Value of hidden pixels, in model-input units; the model's own reference
        value if not given.
    seed
        Where the random choices start; equal seeds give equal coalitions.

    References
    ----------
    Lundberg, Lee (2017). A unified approach to interpreting model predictions.
    NeurIPS. arXiv:1705.07874, theorem 2; paired sampling after Covert, Lee
    (2021), arXiv:2012.01536.
    """

    title: ClassVar = "Kernel SHAP"
    paper: ClassVar = "Lundberg, Lee (2017), arXiv:1705.07874, theorem 2"
    cost: ClassVar = "2 + samples forward rows"
    weaknesses: ClassVar = (
        "Images with many segments hidden are unlike those the model was made for. "
        "Findings that cross segments are cut, and with few coalitions the values are noisy."
    )

    samples: int = Field(
        default=512, ge=4, le=16384, multiple_of=2, description="Most coalitions that are tried."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Where random choices start.")

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return the coalitions and the two ends."""
        every = (1 << self.most(shape)) - 2
        return Cost(forward_rows=ENDS + min(self.samples, every), exact=False)

    @override
    def joint(self, image: Tensor, targets: Targets, tabular: Tabular | None) -> Plan[Maps]:
        """Attribute `image`, and the values beside it if it has any."""
        players = Players(segmented(image, self.segments), tabular)
        coalitions = Coalitions(players.count, self.samples, self.seed)
        shown = coalitions.shown.to(image.device)

        def presence(start: int, stop: int) -> Tensor:
            return shown[start:stop]

        scores, late = yield from self.scored(image, players, presence, len(shown), targets)
        if late and len(scores) <= ENDS:
            raise TimeUp
        known = scores.cpu()
        values = fitted(coalitions.shown[ENDS : len(known)], coalitions.weights(len(known)), known)
        return shared_out(values.to(image.device), scores[:ENDS], players, image, partial=late)


class Coalitions:
    """The two ends, then whole sizes from the outermost inwards, then a draw of the rest.

    Parameters
    ----------
    segments
        Segments to choose from.
    samples
        Most coalitions, the ends not counted.
    seed
        Where the draw starts.
    """

    def __init__(self, segments: int, samples: int, seed: int) -> None:
        rows = [torch.ones(1, segments, dtype=torch.bool)]
        rows.append(~rows[0])
        self._weights: list[float] = []
        self._rest = list(range(1, segments))
        while self._rest and _pairs(segments, self._rest[0]) <= samples - len(self._weights):
            rows.append(self._whole(segments))
        drawn = samples - len(self._weights) if self._rest else 0
        if drawn:
            rows.append(_drawn(segments, self._rest, drawn // 2, seed))
        self._mass = sum(_mass(segments, size) for size in self._rest)
        self.shown = torch.cat(rows)
        """Bool, shape ``(2 + coalitions, segments)``."""

    def weights(self, done: int) -> Tensor:
        """Return the weights of the coalitions among the first `done` rows."""
        whole = self._weights[: done - ENDS]
        drawn = done - ENDS - len(whole)
        return torch.tensor(whole + [self._mass / max(drawn, 1)] * drawn, dtype=torch.float64)

    def _whole(self, segments: int) -> Tensor:
        """Take all coalitions of the outermost size left, each before its complement."""
        size = self._rest[0]
        chosen = torch.tensor([*combinations(range(segments), size)])
        some = torch.zeros(len(chosen), segments, dtype=torch.bool).scatter_(1, chosen, value=True)
        middle = 2 * size == segments  # complements are coalitions of this size themselves
        rows = some if middle else torch.stack([some, ~some], 1).flatten(0, 1)
        self._weights += [_mass(segments, size) / len(some)] * len(rows)
        self._rest = self._rest[1:-1]
        return rows


def _mass(segments: int, size: int) -> float:
    """Return the weight of all coalitions of one size together."""
    return (segments - 1) / (size * (segments - size))


def _pairs(segments: int, size: int) -> int:
    """Return how many coalitions of a size there are, with their complements."""
    return math.comb(segments, size) * (1 if 2 * size == segments else 2)


def _drawn(segments: int, sizes: Sequence[int], pairs: int, seed: int) -> Tensor:
    """Draw coalitions of some sizes by weight, each followed by its complement."""
    generator = torch.Generator().manual_seed(seed)
    masses = torch.tensor([_mass(segments, size) for size in sizes], dtype=torch.float64)
    at = torch.multinomial(masses, pairs, replacement=True, generator=generator)
    ranks = torch.rand(pairs, segments, generator=generator, dtype=torch.float64).argsort(1)
    some = ranks.argsort(1) < torch.tensor(sizes)[at][:, None]
    return torch.stack([some, ~some], 1).flatten(0, 1)


def fitted(shown: Tensor, weights: Tensor, scores: Tensor) -> Tensor:
    """Return the weighted least-squares fit whose values sum to the change in score.

    Parameters
    ----------
    shown
        Coalitions, bool, shape ``(n, M)``.
    weights
        Shape ``(n,)``.
    scores
        Of the two ends and of the coalitions, shape ``(2 + n, K)``.

    Returns
    -------
    Tensor
        Shape ``(K, M)``: of all best fits the one nearest to equal shares.
    """
    present = shown.double()
    change, segments = scores[0] - scores[1], present.shape[1]
    equal = change / segments
    # deviations from equal shares sum to zero, that is, they lie in the plane across (1, ..., 1)
    plane = torch.eye(segments, dtype=torch.float64) - 1 / segments
    design = present @ plane
    left = scores[ENDS:] - scores[1] - present.sum(1, keepdim=True) * equal
    weighted = design * weights[:, None]
    # (1, ..., 1) itself is zero but for rounding, and must not be inverted
    inverse = torch.linalg.pinv(weighted.T @ design, rtol=SMALL, hermitian=True)
    deviation = inverse @ weighted.T @ left
    deviation -= deviation.mean(0)
    values: Tensor = (equal + deviation).T
    return values
