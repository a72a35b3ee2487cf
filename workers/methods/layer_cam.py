"""LayerCAM: a layer's activations weighted by their own positive gradients."""

from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from workers.methods.base import METHODS
from workers.methods.cam import GradientCam, summed


@METHODS.register("layer_cam")
class LayerCam(GradientCam):
    r"""Activations of a layer, each weighted by its own gradient if that is positive.

    .. math:: A(u) = \sum_c \max(g_c(u), 0)\, F_c(u)

    with `g` the score's gradient at the layer `F`. Because no gradient is
    averaged over places, it can be used on shallow layers of fine grids.

    Parameters
    ----------
    layer
        The layer `F`, out of the model's declared ones; its default if not
        given.

    References
    ----------
    Jiang, Zhang, Hou, Cheng, Wei (2021). LayerCAM: exploring hierarchical
    class activation maps for localization. IEEE Transactions on Image
    Processing 30. doi:10.1109/TIP.2021.3089943, eq. 5 to 7.
    """

    title: ClassVar = "LayerCAM"
    signed: ClassVar = False
    paper: ClassVar = "Jiang et al. (2021), doi:10.1109/TIP.2021.3089943, eq. 5-7"
    weaknesses: ClassVar = (
        "Evidence against the target is not shown. On shallow layers it is as noisy as the "
        "gradients it is made of."
    )

    @override
    def combined(self, features: Tensor, gradients: Tensor) -> Tensor:
        """Return maps ``(K, 1, *grid)``."""
        return summed(features, gradients.clamp(min=0))
