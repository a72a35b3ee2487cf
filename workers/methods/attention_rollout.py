"""Attention rollout: attention multiplied up through all blocks."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from workers.methods.attention import AttentionMethod, start
from workers.methods.base import METHODS, Maps
from workers.passes import Ability, Cost, Forward, Plan, Step, Tap, Targets
from workers.rows import Clean


@METHODS.register("attention_rollout")
class AttentionRollout(AttentionMethod):
    r"""How attention leads from the patches to what is read, the same for every target.

    .. math:: R = \tilde{A}_L \cdots \tilde{A}_1, \qquad
              \tilde{A}_l = \tfrac{1}{2} \operatorname{mean}_h A_{lh} + \tfrac{1}{2} I

    with `A` the attention weights of block `l` and head `h`, and the identity
    for the shortcut beside it. The map is the row of `R` that belongs to the
    class token, or the mean of all patches' rows where the score is read off
    their mean.

    References
    ----------
    Abnar, Zuidema (2020). Quantifying attention flow in transformers. ACL.
    arXiv:2005.00928, section 3.
    """

    title: ClassVar = "Attention rollout"
    marks_alike: ClassVar = True
    needs: ClassVar = frozenset({Ability.FORWARD, Ability.ATTENTION})
    paper: ClassVar = "Abnar, Zuidema (2020), arXiv:2005.00928, section 3"
    cost: ClassVar = "1 forward row"
    weaknesses: ClassVar = (
        "It does not ask about the target: the map is the same for all. Where the model looks is "
        "not what it concludes from it, and what perceptrons do between blocks is not followed. "
        "Networks whose tokens attend within windows (Swin) are refused: followed through windows "
        "and merging, it missed what was planted for a trained one (decision 18). "
        "So are those whose tokens reach one another in a way that is not seen: seen are torch's "
        "attention functions, and a softmax over the last axis times the values."
    )

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return one forward row."""
        return Cost(forward_rows=1)

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, 1, *grid)`` of patches."""
        taps = tuple(Tap(place) for place in self.places)
        # scores are asked for too: one that is not finite must fail here as elsewhere
        step: Step = yield Forward(Clean(image), targets, taps=taps)
        relevance = identity = start(step.taps[taps[0]], len(targets))
        for tap in taps:
            attention = step.taps[tap][0].double().mean(0)
            relevance = (attention + identity) / 2 @ relevance
        return self.maps(relevance, image)
