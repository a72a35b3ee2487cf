"""Shapley sampling: what segments add to the score, in random orders."""

from collections.abc import Sequence
from typing import ClassVar, Final

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, Maps, require_half
from workers.methods.segments import Players, SegmentMethod, shared_out
from workers.methods.superpixels import segmented
from workers.passes import Cost, Plan, Targets
from workers.tabular import Tabular

ENDS: Final = 2
"""Rows that come first: everything shown, and nothing."""

FEWEST: Final = 4
"""Orders that make a partial map; half of them if they are fewer."""


@METHODS.register("shapley_sampling")
class ShapleySampling(SegmentMethod):
    r"""Mean of what a segment adds to the score when segments appear in random order.

    .. math:: \phi_i = \frac{1}{n} \sum_{\pi} f(x_{P_i(\pi) \cup \{i\}}) - f(x_{P_i(\pi)})

    with :math:`P_i(\pi)` the segments before `i` in the order :math:`\pi`. Each
    order is followed by its reverse: what comes early in one comes late in the
    other. The sum over segments is ``f(x) - f(b)`` for any number of orders,
    and the pixels of a segment share its value, so that the map has this sum
    as well; how many `orders` it is the mean of is stated with it.

    When time is up after half of the orders, or four of more than eight, the mean over
    those done so far is returned, marked as partial; an order without its reverse does
    not count. On the demo model the map of four of eight orders correlates with the
    full one at 0.89 (median of eight maps; the least 0.78).

    Parameters
    ----------
    segments
        About how many segments.
    orders
        Orders, `n`, an even number.
    baseline
        Value of hidden pixels, in model-input units; the model's own reference
        value if not given.
    seed
        Where the random orders start; equal seeds give equal orders.

    References
    ----------
    Castro, Gomez, Tejada (2009). Polynomial calculation of the Shapley value
    based on sampling. Computers & Operations Research 36 (5), section 3;
    reversed orders after Mitchell et al. (2022), arXiv:2104.12199.
    """

    title: ClassVar = "Shapley sampling"
    paper: ClassVar = "Castro, Gomez, Tejada (2009), doi:10.1016/j.cor.2008.04.004, section 3"
    cost: ClassVar = "2 + orders x (segments - 1) forward rows"
    weaknesses: ClassVar = (
        "Costly: every order shows the segments one by one. Images with many segments hidden "
        "are unlike those the model was made for, and with few orders the values are noisy."
    )

    orders: int = Field(default=8, ge=2, le=1024, multiple_of=2, description="Random orders.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Where random orders start.")

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return the steps of every order and the two ends that all have in common."""
        return Cost(forward_rows=ENDS + self.orders * (self.most(shape) - 1), exact=False)

    @override
    def joint(self, image: Tensor, targets: Targets, tabular: Tabular | None) -> Plan[Maps]:
        """Attribute `image`, and the values beside it if it has any."""
        players = Players(segmented(image, self.segments), tabular)
        ranks = self.ranks(players.count).to(image.device)
        steps = ranks.shape[1] - 1

        def presence(start: int, stop: int) -> Tensor:
            rows = torch.arange(start, stop, device=image.device) - ENDS
            order, step = rows.clamp(min=0) // steps, rows % steps
            shown = ranks[order] <= step[:, None]
            shown[rows < 0] = (rows[rows < 0] == -ENDS)[:, None]
            return shown

        count = ENDS + self.orders * steps
        scores, late = yield from self.scored(image, players, presence, count, targets)
        whole = max(len(scores) - ENDS, 0) // steps // 2 * 2  # each order with its reverse
        require_half(whole, self.orders, FEWEST)
        values = _gains(scores, ranks[:whole], steps)
        done = {"orders": float(whole)}
        return shared_out(values, scores[:ENDS], players, image, done, partial=late)

    def ranks(self, segments: int) -> Tensor:
        """Return the place of each segment in each order, shape ``(orders, segments)``."""
        generator = torch.Generator().manual_seed(self.seed)
        ranks = torch.rand(self.orders // 2, segments, generator=generator).argsort(1)
        return torch.stack([ranks, segments - 1 - ranks], 1).flatten(0, 1)


def _gains(scores: Tensor, ranks: Tensor, steps: int) -> Tensor:
    """Return what each segment adds, averaged over whole orders, shape ``(K, segments)``."""
    orders, targets = len(ranks), scores.shape[1]
    between = scores[ENDS : ENDS + orders * steps].reshape(orders, steps, targets)
    full, empty = (end.expand(orders, 1, targets) for end in scores[:ENDS])
    gains = torch.cat([empty, between, full], 1).diff(dim=1)
    return gains.gather(1, ranks[:, :, None].expand_as(gains)).mean(0).T
