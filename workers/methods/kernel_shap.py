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

SHARE: Final = 0.6
"""Fewest coalitions of a partial map, as a share of all."""

EACH: Final = 3
"""Fewest coalitions of a partial map to a segment."""

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
    segment share its value, so that the map sums to ``f(x) - f(b)``. Where
    `samples` are too few to tell segments apart, these get equal shares.

    Those that are drawn come first, then the others in random order. When time is up
    after 0.6 of the coalitions, three to a segment at least, and these tell all segments
    apart, the fit to them is returned, marked as partial; how many `samples` there were
    is stated with every map. On the demo model the fit to 0.6 of them correlates with
    the full map at 0.98 (median of eight maps; the least 0.96), to 0.5 at 0.63.

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
        known = coalitions.known(len(scores))
        rows = ENDS + known
        values = fitted(
            coalitions.shown[ENDS:rows], coalitions.weights[:known], scores[:rows].cpu()
        )
        done = {"samples": float(known)}
        ends = scores[:ENDS]
        return shared_out(values.to(image.device), ends, players, image, done, partial=late)


class Coalitions:
    """The two ends, a draw of the inner sizes, then the outermost sizes whole.

    Coalitions come in pairs, each before its complement. Those that are drawn mix all
    sizes and tell most, so that they come first; the pairs of whole sizes follow in random
    order. The first few of either are a sample of all, whichever segments they show.

    Parameters
    ----------
    segments
        Segments to choose from.
    samples
        Most coalitions, the ends not counted.
    seed
        Where the random choices start.
    """

    def __init__(self, segments: int, samples: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        sizes, left = [*range(1, segments)], samples // 2
        whole = [torch.ones(0, segments, dtype=torch.bool)]
        while sizes and _pairs(segments, sizes[0]) <= left:
            whole.append(_whole(segments, sizes[0]))
            left -= len(whole[-1])
            sizes = sizes[1:-1]
        outer = torch.cat(whole)
        inner = _drawn(segments, sizes, left, generator) if sizes and left else outer[:0]
        outer = outer[torch.randperm(len(outer), generator=generator)]
        mass = sum(_mass(segments, size) for size in sizes) / max(2 * len(inner), 1)
        weights = [mass] * len(inner) + [_weight(segments, size) for size in outer.sum(1).tolist()]
        some, ends = torch.cat([inner, outer]), torch.tensor([[True], [False]])
        self.shown = torch.cat(
            [ends.expand(ENDS, segments), torch.stack([some, ~some], 1).flatten(0, 1)]
        )
        """Bool, shape ``(2 + coalitions, segments)``."""
        self.weights = torch.tensor(weights, dtype=torch.float64).repeat_interleave(2)
        """Of the coalitions, shape ``(coalitions,)``."""

    def known(self, done: int) -> int:
        """Return how many coalitions of the first `done` rows count: those that are in pairs.

        Raises
        ------
        TimeUp
            Not all rows are done, and these are too few for a map.
        """
        paired = max(done - ENDS, 0) // 2 * 2
        if done < len(self.shown):
            least = max(SHARE * len(self.weights), EACH * self.shown.shape[1])
            if paired < least or not told_apart(self.shown[ENDS : ENDS + paired]):
                raise TimeUp
        return paired


def _whole(segments: int, size: int) -> Tensor:
    """Return all coalitions of a size; of two complements of half the segments the first."""
    chosen = torch.tensor([*combinations(range(segments), size)])[: _pairs(segments, size)]
    return torch.zeros(len(chosen), segments, dtype=torch.bool).scatter_(1, chosen, value=True)


def _mass(segments: int, size: int) -> float:
    """Return the weight of all coalitions of one size together."""
    return (segments - 1) / (size * (segments - size))


def _weight(segments: int, size: int) -> float:
    """Return the weight of one of all coalitions of a size."""
    return _mass(segments, size) / math.comb(segments, size)


def _pairs(segments: int, size: int) -> int:
    """Return how many coalitions of a size and their complements there are, as pairs."""
    return math.comb(segments, size) // (2 if 2 * size == segments else 1)


def _drawn(segments: int, sizes: Sequence[int], pairs: int, generator: torch.Generator) -> Tensor:
    """Draw coalitions of some sizes by weight, one of each pair."""
    masses = torch.tensor([_mass(segments, size) for size in sizes], dtype=torch.float64)
    at = torch.multinomial(masses, pairs, replacement=True, generator=generator)
    ranks = torch.rand(pairs, segments, generator=generator, dtype=torch.float64).argsort(1)
    return ranks.argsort(1) < torch.tensor(sizes)[at][:, None]


def told_apart(shown: Tensor) -> bool:
    """Tell whether coalitions ``(n, M)`` are enough for a value of each segment of its own."""
    design = across(shown.double())
    values = torch.linalg.eigvalsh(design.T @ design)
    return int((values > SMALL * values[-1]).sum()) == shown.shape[1] - 1


def across(present: Tensor) -> Tensor:
    """Return rows ``(n, M)`` less their means.

    Deviations from equal shares sum to zero, that is, they lie in the plane across (1, ..., 1).
    """
    return present - present.mean(1, keepdim=True)


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
    design = across(present)
    left = scores[ENDS:] - scores[1] - present.sum(1, keepdim=True) * equal
    weighted = design * weights[:, None]
    # (1, ..., 1) itself is zero but for rounding, and must not be inverted
    inverse = torch.linalg.pinv(weighted.T @ design, rtol=SMALL, hermitian=True)
    deviation = inverse @ weighted.T @ left
    deviation -= deviation.mean(0)
    values: Tensor = (equal + deviation).T
    return values
