"""Grad-CAM++: a layer's channels weighted by their positive gradients, place by place."""

from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS
from workers.methods.cam import GradientCam, weighted


@METHODS.register("grad_cam_plus_plus")
class GradCamPlusPlus(GradientCam):
    r"""Grad-CAM in which several places of one finding count alike.

    .. math:: A = \sum_c w_c F_c, \qquad
              w_c = \sum_{u} \alpha_c(u) \max(g_c(u), 0), \qquad
              \alpha_c(u) = \frac{1}{2 + g_c(u) \sum_v F_c(v)}

    with `g` the score's gradient at the layer `F`. The weight `alpha` is the
    paper's ratio of derivatives of ``exp f`` with its common factor divided
    out; the factor ``exp f`` of all weights, which a logit would let overflow,
    is left out. The sum over `F` takes positive values only: for a rectified
    layer that is all of them, and for any other it keeps the ratio free of
    poles.

    Parameters
    ----------
    layer
        The layer `F`, out of the model's declared ones; its default if not
        given.

    References
    ----------
    Chattopadhay, Sarkar, Howlader, Balasubramanian (2018). Grad-CAM++:
    improved visual explanations for deep convolutional networks. WACV.
    arXiv:1710.11063, eq. 10 and 19.
    """

    title: ClassVar = "Grad-CAM++"
    signed: ClassVar = False
    marks_alike: ClassVar = True
    linear: ClassVar = True
    paper: ClassVar = "Chattopadhay et al. (2018), arXiv:1710.11063, eq. 10 and 19"
    weaknesses: ClassVar = (
        "As coarse as the layer's grid. Evidence against the target is not shown. The formula "
        "assumes that the score is the logarithm of what the model gives, and that the model "
        "is piecewise linear beyond the layer."
    )

    @override
    def combined(self, features: Tensor, gradients: Tensor) -> Tensor:
        """Return maps ``(K, 1, *grid)``."""
        positive = gradients.double().flatten(2).clamp(min=0)
        totals = features.double().flatten(1).clamp(min=0).sum(1)
        weights = (positive / (2 + positive * totals[:, None])).sum(2)
        return weighted(features, weights)
