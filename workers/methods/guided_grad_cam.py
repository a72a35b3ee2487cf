"""Guided Grad-CAM: guided backpropagation where Grad-CAM points to."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS, Maps, cells
from workers.methods.cam import CamMethod, enlarged, pooled, require_grid, weighted
from workers.passes import Ability, Cost, Gradient, Plan, Rule, Step, Targets
from workers.rows import INPUT, Clean


@METHODS.register("guided_grad_cam")
class GuidedGradCam(CamMethod):
    r"""Guided backpropagation times the enlarged, rectified Grad-CAM.

    .. math:: A = R \odot \operatorname{up}\left(\max\left(\sum_c \alpha_c F_c, 0\right)\right)

    with `R` the map of guided backpropagation and the sum that of Grad-CAM,
    enlarged linearly to the image. Where Grad-CAM is negative the map is zero.

    Parameters
    ----------
    layer
        The layer `F`, out of the model's declared ones; its default if not
        given.

    References
    ----------
    Selvaraju et al. (2017). Grad-CAM: visual explanations from deep networks
    via gradient-based localization. ICCV. arXiv:1610.02391, section 3.2.
    """

    title: ClassVar = "Guided Grad-CAM"
    needs: ClassVar = frozenset({Ability.RECTIFIER_RULES, Ability.LAYER_GRADIENT})
    signed: ClassVar = True
    sense: ClassVar = "guided"
    weak: ClassVar = True
    paper: ClassVar = "Selvaraju et al. (2017), arXiv:1610.02391, section 3.2"
    cost: ClassVar = "2 gradient rows"
    weaknesses: ClassVar = (
        "Its fine detail is weak evidence on any model, and graded so: guided backpropagation "
        "draws the image's edges. Only the coarse region comes from Grad-CAM, and has its grid."
    )

    @override
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return one gradient row of each kind."""
        return Cost(gradient_rows=2)

    @override
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``; maps ``(K, C, *spatial)``."""
        guided: Step
        cut: Step
        guided, cut = yield (
            Gradient(Clean(image), targets, rule=Rule.GUIDED),
            Gradient(Clean(image), targets, at=(self.place,)),
        )
        features = cut.activations[self.place][0]
        require_grid(features, image)
        coarse = weighted(features, pooled(cut.gradients[self.place][0])).clamp(min=0)
        spatial = image.shape[1:]
        values = guided.gradients[INPUT][0] * enlarged(coarse, spatial)
        return Maps(values, cells(spatial, spatial))
