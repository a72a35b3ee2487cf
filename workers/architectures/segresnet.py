"""MONAI's SegResNet, 2-D and 3-D, without its autoencoder."""

from typing import Literal

from pydantic import Field
from torch import nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture
from workers.architectures.monai import Count, Part, Share, of_monai

NETWORK = of_monai("segresnet", "SegResNet")


@ARCHITECTURES.register("segresnet")
class SegResNet(Architecture):
    """Residual blocks on a long way down and a short way up.

    Parameters
    ----------
    spatial_dims, in_channels, out_channels
        Spatial axes, channels of the image, channels of the logits.
    init_filters
        Channels of the first convolution; each scale doubles them.
    blocks_down, blocks_up
        Blocks of each scale on the ways down and up.
    act, norm, use_conv_final, upsample_mode
        As MONAI has them.
    dropout_prob
        Of training; without effect here.

    References
    ----------
    A. Myronenko, "3D MRI brain tumor segmentation using autoencoder
    regularization", BrainLes 2018. arXiv:1810.11654.
    """

    spatial_dims: Literal[2, 3] = 3
    init_filters: Count = 8
    in_channels: Count = 1
    out_channels: Count = 2
    dropout_prob: Share | None = None
    act: Part = ("RELU", {"inplace": True})
    norm: Part = ("GROUP", {"num_groups": 8})
    use_conv_final: bool = True
    blocks_down: tuple[Count, ...] = Field(default=(1, 2, 2, 4), min_length=1, max_length=8)
    blocks_up: tuple[Count, ...] = Field(default=(1, 1, 1), max_length=8)
    upsample_mode: Literal["deconv", "nontrainable", "pixelshuffle"] = "nontrainable"

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return NETWORK(**dict(self))
