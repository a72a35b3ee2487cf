"""Grad-CAM: a layer's channels weighted by their pooled gradients."""

from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS
from workers.methods.cam import GradientCam, pooled, weighted


@METHODS.register("grad_cam")
class GradCam(GradientCam):
    r"""Gradient-weighted class activation map of one layer, with its sign.

    .. math:: A = \sum_c \alpha_c F_c, \qquad
              \alpha_c = \frac{1}{|\Omega|} \sum_{u \in \Omega}
              \frac{\partial f}{\partial F_c(u)}

    The map stays on the layer's own grid, and evidence against the target
    stays negative; the paper's rectification and the enlargement are matters
    of display.

    Parameters
    ----------
    layer
        The layer `F`, out of the model's declared ones; its default if not
        given.

    References
    ----------
    Selvaraju et al. (2017). Grad-CAM: visual explanations from deep networks
    via gradient-based localization. ICCV. arXiv:1610.02391, eq. 1 and 2.
    """

    title: ClassVar = "Grad-CAM"
    signed: ClassVar = True
    marks_alike: ClassVar = True
    paper: ClassVar = "Selvaraju et al. (2017), arXiv:1610.02391, eq. 1-2"
    weaknesses: ClassVar = (
        "As coarse as the layer's grid: small findings share a cell with their surroundings. "
        "Averaged gradients can point to places that did not raise the score."
    )

    @override
    def combined(self, features: Tensor, gradients: Tensor) -> Tensor:
        """Return maps ``(K, 1, *grid)``."""
        return weighted(features, pooled(gradients))
