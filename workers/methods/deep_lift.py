"""DeepLIFT: differences from a reference, led back through the network by the rescale rule."""

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from captum.attr import DeepLift as Engine
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, ModelFacts
from workers.methods.lent import LentMethod, Part
from workers.passes import Ability, Cost
from workers.rows import Blend, Rows
from workers.twins import Scored, separated


@METHODS.register("deep_lift")
class DeepLift(LentMethod):
    r"""Contributions to the change in score from one reference image, by the rescale rule.

    .. math:: A = (x - b) \odot m, \qquad
              m_{\mathrm{in}} = m_{\mathrm{out}}\,
              \frac{\sigma(z) - \sigma(z_b)}{z - z_b} \text{ at every non-linearity } \sigma

    Where a gradient knows a non-linearity by its slope at the image alone, the
    multiplier `m` is its slope between reference and image: a rectifier that is
    off at the image still tells that it was on before. Linear layers pass
    multipliers on as they do gradients. The maps then sum to ``f(x) - f(b)``,
    with no path to be walked in steps.

    It is computed by captum, an optional extra, which knows rectifiers and
    other non-linearities by their modules: one that is used twice or written as
    a function would be passed in silence as if it were linear. Whether
    contributions add up is therefore tried on every network when it is loaded,
    and a network on which they do not is refused. To captum's rules is added
    that of the square, which ends the features of our own networks.

    Parameters
    ----------
    baseline
        Value of the reference image after preprocessing, in model units; the
        model's own reference value if not given.

    References
    ----------
    Shrikumar, Greenside, Kundaje (2017). Learning important features through
    propagating activation differences. ICML. arXiv:1704.02685, section 3.5.1.
    """

    title: ClassVar = "DeepLIFT"
    needs: ClassVar = frozenset({Ability.EXCLUSIVE, Ability.RESCALE_RULE})
    linear: ClassVar = True
    paper: ClassVar = "Shrikumar, Greenside, Kundaje (2017), arXiv:1704.02685, section 3.5.1"
    cost: ClassVar = "2 gradient rows for each target; 2 forward rows"
    weaknesses: ClassVar = (
        "The map depends on the baseline: places that look like it get nothing. How a network is "
        "written changes the map though its scores stay the same. The model is lent to one job "
        "for each call, so that nothing is shared with others."
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
        known = self.baseline is not None
        return self if known else self.model_copy(update={"baseline": model.baseline})

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return image and reference, once for the scores and for each target's gradient."""
        return Cost(forward_rows=2, gradient_rows=2 * targets)

    @override
    def references(self, image: Tensor) -> Rows:
        """Return the one uniform image."""
        return Blend(image, self.baseline or 0.0, (0.0,))

    @override
    def parts(self, image: Tensor) -> Sequence[Part]:
        """Return the one call, for image and reference."""

        def contributions(scored: Scored) -> Tensor:
            reference = torch.full_like(image, self.baseline or 0.0)
            made: Tensor = Engine(separated(scored)).attribute(image[None], reference[None])
            return made

        return (contributions,)
