"""LIME: a linear model of which segments are shown, fitted near the image."""

from collections.abc import Sequence
from typing import ClassVar, Final

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, Maps
from workers.methods.segments import Players, SegmentMethod, on_pixels
from workers.methods.superpixels import segmented
from workers.passes import Cost, Plan, Targets, TimeUp
from workers.tabular import Tabular

SHARE: Final = 0.75
"""Fewest subsets of a partial map, as a share of all."""


@METHODS.register("lime")
class Lime(SegmentMethod):
    r"""Weights of the ridge regression of the score on which segments are shown.

    .. math:: \min_{c, \phi} \sum_z e^{-D(z)^2 / \omega^2}
              \left(f(x_z) - c - z^T \phi\right)^2 + \lambda \|\phi\|^2, \qquad
              D(z) = 1 - \sqrt{|z| / M}

    over random subsets `z` of `M` segments, each shown or hidden by the toss
    of a coin, with their complements, and the whole image. `D` is the cosine
    distance to the whole image. A ridge is used and not a lasso: its weights
    keep their proportions when all scores are small, where a lasso answers
    with zeros.

    `fit` is the share of the scores' variance that the weights tell, in the subsets
    they were fitted to, and `samples` says how many these were: the fewer, the more is
    told by chance. When time is up after three quarters of the subsets, the fit to the
    whole pairs among them is returned, marked as partial. On the demo model the fit to
    three quarters correlates with the full map at 0.88 (median of eight maps; the least
    0.73), to half of them at 0.67, and `fit` is 0.59, 0.76 and, of all, 0.52.

    Parameters
    ----------
    segments
        About how many segments, `M`.
    samples
        Subsets, an even number; well above `segments`.
    width
        Kernel width, :math:`\omega`: subsets farther from the whole image than
        this count little. Those with half of the segments, which are most, are
        at 0.29: below 0.1 they would weigh next to nothing.
    ridge
        Penalty, :math:`\lambda`, in units of one subset's weight; it shrinks
        all weights towards zero. However little it is, of the weights that fit
        equally well it takes the smallest.
    baseline
        Value of hidden pixels, in model-input units; the model's own reference
        value if not given.
    seed
        Where the random choices start; equal seeds give equal subsets.

    References
    ----------
    Ribeiro, Singh, Guestrin (2016). "Why should I trust you?": explaining the
    predictions of any classifier. KDD. arXiv:1602.04938, eq. 2 and section 3.4.
    """

    title: ClassVar = "LIME"
    paper: ClassVar = "Ribeiro, Singh, Guestrin (2016), arXiv:1602.04938, eq. 2"
    cost: ClassVar = "1 + samples forward rows"
    weaknesses: ClassVar = (
        "The kernel's width changes the map, and no width is right for every image. Images with "
        "half of their segments hidden are unlike those the model was made for."
    )

    samples: int = Field(default=512, ge=4, le=16384, multiple_of=2, description="Subsets.")
    width: float = Field(
        default=0.25, ge=0.1, le=10, description="Kernel width, as a cosine distance from 0 to 1."
    )
    ridge: float = Field(
        default=1.0, ge=1e-9, le=1e6, description="Penalty, in units of one subset's weight."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Where random choices start.")

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return the subsets and the whole image."""
        return Cost(forward_rows=1 + self.samples)

    @override
    def joint(self, image: Tensor, targets: Targets, tabular: Tabular | None) -> Plan[Maps]:
        """Attribute `image`, and the values beside it if it has any."""
        players = Players(segmented(image, self.segments), tabular)
        subsets = self.subsets(players.count)
        shown = subsets.to(image.device)

        def presence(start: int, stop: int) -> Tensor:
            return shown[start:stop]

        scores, late = yield from self.scored(image, players, presence, len(shown), targets)
        done = (len(scores) - 1) // 2 * 2  # a subset without its complement is unbalanced
        if done < SHARE * self.samples:
            raise TimeUp
        values, fit = self._fitted(subsets[: 1 + done].double(), scores[: 1 + done].cpu())
        figures = [
            {"score": score, "fit": r, "samples": float(done)}
            for score, r in zip(scores[0].tolist(), fit, strict=True)
        ]
        return on_pixels(values.to(image.device), players, image, figures, partial=late)

    def subsets(self, segments: int) -> Tensor:
        """Return the whole image and random subsets, bool, shape ``(1 + samples, segments)``."""
        generator = torch.Generator().manual_seed(self.seed)
        some = torch.randint(2, (self.samples // 2, segments), generator=generator).bool()
        every = torch.ones(1, segments, dtype=torch.bool)
        return torch.cat([every, torch.stack([some, ~some], 1).flatten(0, 1)])

    def _fitted(self, shown: Tensor, scores: Tensor) -> tuple[Tensor, list[float]]:
        """Return weights ``(K, segments)``, and the share of the scores' variance they tell."""
        distance = 1 - shown.mean(1, keepdim=True).sqrt()
        kernel = torch.exp(-((distance / self.width) ** 2))
        kernel_sum = kernel.sum()
        # centered by their weighted means, the intercept drops out and bears no penalty
        design = shown - (kernel * shown).sum(0) / kernel_sum
        left = scores - (kernel * scores).sum(0) / kernel_sum
        segments, root = shown.shape[1], kernel.sqrt()
        # the penalty as rows that are to be zero: the normal equations would square the condition
        penalty = self.ridge**0.5 * torch.eye(segments, dtype=torch.float64)
        rows = torch.cat([root * design, penalty])
        wanted = torch.cat([root * left, left.new_zeros(segments, left.shape[1])])
        # the penalty makes the rank full; torch's default driver gives other bits at every call
        values = torch.linalg.lstsq(rows, wanted, driver="gels").solution
        unexplained = (kernel * (left - design @ values) ** 2).sum(0)
        variance = (kernel * left**2).sum(0)
        fit = [
            1 - rest / all_ if all_ > 0 else 1.0
            for rest, all_ in zip(unexplained.tolist(), variance.tolist(), strict=True)
        ]
        return values.T, fit
