"""HiRes-CAM: a layer's activations weighted by their own gradients."""

from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS
from workers.methods.cam import GradientCam, summed


@METHODS.register("hires_cam")
class HiResCam(GradientCam):
    r"""Activations of a layer, each times its own gradient, with its sign.

    .. math:: A(u) = \sum_c g_c(u)\, F_c(u)

    with `g` the score's gradient at the layer `F`. Where the model is linear
    beyond the layer, the map shares out the score exactly, up to the bias; if
    it is a mean over places besides, it equals Grad-CAM.

    Parameters
    ----------
    layer
        The layer `F`, out of the model's declared ones; its default if not
        given.

    References
    ----------
    Draelos, Carin (2020). Use HiResCAM instead of Grad-CAM for faithful
    explanations of convolutional neural networks. arXiv:2011.08891, eq. 4.
    """

    title: ClassVar = "HiRes-CAM"
    signed: ClassVar = True
    paper: ClassVar = "Draelos, Carin (2020), arXiv:2011.08891, eq. 4"
    weaknesses: ClassVar = (
        "As coarse as the layer's grid. Exact only where the model is linear beyond the layer."
    )

    @override
    def combined(self, features: Tensor, gradients: Tensor) -> Tensor:
        """Return maps ``(K, 1, *grid)``."""
        return summed(features, gradients)
