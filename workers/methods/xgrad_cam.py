"""XGrad-CAM: a layer's channels weighted by gradients where the channel is active."""

from typing import ClassVar, Final

import torch
from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS
from workers.methods.cam import GradientCam, weighted

ROUNDINGS: Final = 64.0 * torch.finfo(torch.float32).eps
"""Share of a channel's magnitude below which its sum is no more than rounding."""


@METHODS.register("xgrad_cam")
class XGradCam(GradientCam):
    r"""Grad-CAM with gradients averaged by the channel's own activation.

    .. math:: A = \sum_c w_c F_c, \qquad
              w_c = \frac{\sum_u F_c(u)\, g_c(u)}{\sum_u F_c(u)}

    with `g` the score's gradient at the layer `F`. The map sums to
    :math:`\sum_{c,u} F_c(u) g_c(u)`, the first-order share of the layer in the
    score. A channel whose values sum to nothing beyond rounding has no such
    average and gets no weight.

    Parameters
    ----------
    layer
        The layer `F`, out of the model's declared ones; its default if not
        given.

    References
    ----------
    Fu et al. (2020). Axiom-based Grad-CAM: towards accurate visualization and
    explanation of CNNs. BMVC. arXiv:2008.02312, eq. 8.
    """

    title: ClassVar = "XGrad-CAM"
    signed: ClassVar = True
    marks_alike: ClassVar = True
    paper: ClassVar = "Fu et al. (2020), arXiv:2008.02312, eq. 8"
    weaknesses: ClassVar = (
        "As coarse as the layer's grid. On a layer that is not rectified, a channel whose "
        "positive and negative values nearly cancel gets an arbitrarily large weight."
    )

    @override
    def combined(self, features: Tensor, gradients: Tensor) -> Tensor:
        """Return maps ``(K, 1, *grid)``."""
        flat = features.double().flatten(1)
        shares = (gradients.double().flatten(2) * flat).sum(2)
        totals, magnitudes = flat.sum(1), flat.abs().sum(1)
        there = totals.abs() > ROUNDINGS * magnitudes
        weights = torch.where(there, shares / torch.where(there, totals, 1.0), 0.0)
        return weighted(features, weights)
