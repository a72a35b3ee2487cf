"""Gradient x attention: attention that raised the score, followed through all blocks."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from workers.methods.attention import AttentionMethod, start
from workers.methods.base import METHODS, Maps
from workers.passes import Ability, Cost, Gradient, Plan, Step, Targets
from workers.rows import Clean


@METHODS.register("gradient_attention")
class GradientAttention(AttentionMethod):
    r"""Relevance of each patch, by attention weighted with its positive gradient.

    .. math:: R \leftarrow R + \bar{A}_l R, \qquad
              \bar{A}_l = \operatorname{mean}_h
              \max\left(\frac{\partial f}{\partial A_{lh}} \odot A_{lh}, 0\right)

    from the first block `l` to the last, with `R` the identity at first and
    `A` the attention weights of head `h`. The map is the row of `R` that
    belongs to the class token, or the mean of all patches' rows where the
    score is read off their mean.

    References
    ----------
    Chefer, Gur, Wolf (2021). Generic attention-model explainability for
    interpreting bi-modal and encoder-decoder transformers. ICCV.
    arXiv:2103.15679, eq. 5 and 6.
    """

    title: ClassVar = "Gradient x attention"
    needs: ClassVar = frozenset({Ability.ATTENTION})
    paper: ClassVar = "Chefer, Gur, Wolf (2021), arXiv:2103.15679, eq. 5-6"
    cost: ClassVar = "1 gradient row"
    weaknesses: ClassVar = (
        "Evidence against the target is not shown. As coarse as the patches. What perceptrons do "
        "between blocks is followed by the gradient alone. Networks whose tokens attend within "
        "windows (Swin) are refused: followed through windows and merging, it missed what was "
        "planted for a trained one (decision 18). "
        "So are those whose tokens reach one another in a way that is not seen: seen are torch's "
        "attention functions, and a softmax over the last axis times the values."
    )

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return one gradient row."""
        return Cost(gradient_rows=1)

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, 1, *grid)`` of patches."""
        step: Step = yield Gradient(Clean(image), targets, at=self.places)
        relevance = start(step.activations[self.places[0]], len(targets))
        for place in self.places:
            attention = step.activations[place][0].double()
            raised = (step.gradients[place][0].double() * attention).clamp(min=0).mean(1)
            relevance = relevance + raised @ relevance
        return self.maps(relevance, image)
