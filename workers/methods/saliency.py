"""Saliency: the gradient of the score with respect to each pixel."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, Maps, Method, cells
from workers.passes import Ability, Cost, Gradient, Plan, Step, Targets
from workers.rows import INPUT, Clean


@METHODS.register("saliency")
class Saliency(Method):
    r"""The score's gradient at the image, with its sign.

    .. math:: A = \nabla f(x)

    The paper shows magnitudes, maximal over channels; that is a matter of
    display, and the raw map keeps the sign and the channels.

    References
    ----------
    Simonyan, Vedaldi, Zisserman (2013). Deep inside convolutional networks.
    arXiv:1312.6034, section 3.
    """

    title: ClassVar = "Saliency"
    needs: ClassVar = frozenset({Ability.INPUT_GRADIENT})
    signed: ClassVar = True
    sense: ClassVar = "sensitivity"
    paper: ClassVar = "Simonyan, Vedaldi, Zisserman (2013), arXiv:1312.6034, section 3"
    cost: ClassVar = "1 gradient row"
    weaknesses: ClassVar = (
        "Noisy from pixel to pixel. It tells where a small change would move the score, "
        "not how much each place contributed to it."
    )

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return one gradient row."""
        return Cost(gradient_rows=1)

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, C, *spatial)``."""
        step: Step = yield Gradient(Clean(image), targets)
        spatial = image.shape[1:]
        return Maps(step.gradients[INPUT][0], cells(spatial, spatial))
