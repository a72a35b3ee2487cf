"""DeepLIFT SHAP: DeepLIFT, averaged over many references."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from captum.attr import DeepLift as Engine
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, spread_order
from workers.methods.lent import ROWS, LentMethod, Part, as_fit, grays
from workers.passes import Ability, Cost
from workers.rows import Given, Rows
from workers.twins import Scored, separated


@METHODS.register("deep_lift_shap")
class DeepLiftShap(LentMethod):
    r"""Mean of DeepLIFT's contributions over reference images of every gray.

    .. math:: A = \frac{1}{n} \sum_{i=1}^{n} (x - r_i) \odot m(x, r_i)

    With `m` as in DeepLIFT. It estimates Shapley values under the assumption
    that pixels are independent. The paper draws references from the data that
    the model was trained on; there is none at hand for a single job, so that
    they are uniform images of every gray between the image's darkest and its
    brightest: no gray is the one that counts as nothing. The maps sum to the
    score less the mean score of the references.

    When time is up after half of the references, or eight of more than 16, for every
    target, the mean over those done so far is returned, marked as partial: the first
    few are spread between darkest and brightest, and the residual counts from all of
    them. On the demo model the map of four of eight references correlates with the full
    one at 0.96 (median of eight maps; the least 0.95).

    It is computed by captum, an optional extra, and refused for the networks
    for which DeepLIFT is.

    Parameters
    ----------
    samples
        References, `n`, an even number.

    References
    ----------
    Lundberg, Lee (2017). A unified approach to interpreting model predictions.
    NeurIPS. arXiv:1705.07874, section 4.2.
    """

    title: ClassVar = "DeepLIFT SHAP"
    needs: ClassVar = frozenset({Ability.EXCLUSIVE, Ability.RESCALE_RULE})
    linear: ClassVar = True
    partial_map: ClassVar = True
    paper: ClassVar = "Lundberg, Lee (2017), arXiv:1705.07874, section 4.2"
    cost: ClassVar = "2 x samples gradient rows for each target; samples + 1 forward rows"
    weaknesses: ClassVar = (
        "References are uniform images, not the model's training data as in the paper: the map "
        "tells what sets the image apart from them, not from other patients. Pixels of an image "
        "are not independent, as the Shapley values that are estimated assume. How a network is "
        "written changes the map though its scores stay the same."
    )

    samples: int = Field(default=8, ge=2, le=256, multiple_of=2, description="References.")

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return image and references, and a pair for each reference and target."""
        return Cost(forward_rows=1 + self.samples, gradient_rows=2 * self.samples * targets)

    @override
    def references(self, image: Tensor) -> Rows:
        """Return the uniform images."""
        return Given(grays(image, self.samples))

    @override
    def parts(self, image: Tensor) -> Sequence[Part]:
        """Return a call for each few references; a row of the image goes with each of them."""
        references = grays(image, self.samples)

        def contributions(some: Tensor, scored: Scored) -> Tensor:
            network = separated(scored)

            def single(rows: Tensor) -> Tensor:
                images = image.expand(len(rows), *image.shape)
                made: Tensor = Engine(network).attribute(images, rows)
                return made

            return as_fit(references[some], single)

        order = torch.tensor(spread_order(self.samples))
        return [partial(contributions, some) for some in order.split(ROWS // 2)]
