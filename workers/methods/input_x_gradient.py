"""Input x gradient: the gradient, weighted by the pixel it belongs to."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, Maps, Method, cells
from workers.passes import Ability, Cost, Gradient, Plan, Step, Targets
from workers.rows import INPUT, VALUES, Beside, Clean
from workers.tabular import Tabular


@METHODS.register("input_x_gradient")
class InputXGradient(Method):
    r"""The image times the score's gradient at the image, with its sign.

    .. math:: A = x \odot \nabla f(x)

    Of a model that is linear in its input, it is each pixel's own share of the
    score. The pixels `x` are those that the model sees, after preprocessing.
    A value beside the image counts from its baseline: `v - b` times its gradient.

    References
    ----------
    Shrikumar, Greenside, Shcherbina, Kundaje (2016). Not just a black box:
    learning important features through propagating activation differences.
    arXiv:1605.01713, section 3.
    """

    title: ClassVar = "Input x gradient"
    needs: ClassVar = frozenset({Ability.INPUT_GRADIENT})
    signed: ClassVar = True
    paper: ClassVar = "Shrikumar et al. (2016), arXiv:1605.01713, section 3"
    cost: ClassVar = "1 gradient row"
    weaknesses: ClassVar = (
        "Pixels that preprocessing maps to zero get nothing, whatever they show: with "
        "normalization that is a middle gray, not black. As noisy as saliency."
    )

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return one gradient row."""
        return Cost(gradient_rows=1)

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, C, *spatial)``."""
        step: Step = yield Gradient(Clean(image), targets)
        return _maps(image, step)

    @override
    def joint(self, image: Tensor, targets: Targets, tabular: Tabular | None) -> Plan[Maps]:
        """Attribute `image` and the values beside it."""
        if tabular is None:
            return (yield from self.plan(image, targets))
        rows = Beside(Clean(image), tabular.values)
        step: Step = yield Gradient(rows, targets, at=(INPUT, VALUES))
        return replace(_maps(image, step), shares=step.gradients[VALUES][0] * tabular.way)


def _maps(image: Tensor, step: Step) -> Maps:
    spatial = image.shape[1:]
    return Maps(image * step.gradients[INPUT][0], cells(spatial, spatial))
