"""What methods share that replace the derivative of every ReLU."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from workers.methods.base import Maps, Method, cells
from workers.passes import Ability, Cost, Gradient, Plan, Rule, Step, Targets
from workers.rows import INPUT, Clean


class GuidedMethod(Method):
    """The gradient at the image with another rule at every ReLU, with its sign."""

    needs: ClassVar = frozenset({Ability.RECTIFIER_RULES})
    signed: ClassVar = True
    sense: ClassVar = "guided"
    weak: ClassVar = True
    cost: ClassVar = "1 gradient row"
    weaknesses: ClassVar = (
        "Weak evidence on any model, and graded so even where it passes the randomization check: "
        "it draws the image's edges much alike for every target and for a model with random "
        "weights, because what it leaves out of the gradient is what tells them apart. Only ReLUs "
        "are replaced."
    )

    rule: ClassVar[Rule]

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return one gradient row."""
        return Cost(gradient_rows=1)

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, C, *spatial)``."""
        step: Step = yield Gradient(Clean(image), targets, rule=self.rule)
        spatial = image.shape[1:]
        return Maps(step.gradients[INPUT][0], cells(spatial, spatial))
