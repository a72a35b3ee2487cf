"""MONAI's dynamic U-Net, 2-D and 3-D."""

from typing import Literal

from pydantic import Field
from torch import nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture
from workers.architectures.monai import Count, Edges, Part, of_monai
from workers.state_dicts import Renamed

NETWORK = of_monai("dynunet", "DynUNet")

MONAI = Renamed(without=r"(skip_layers|deep_supervision_heads)\..*")
"""Checkpoints of MONAI's own, with heads for training and second names."""


@ARCHITECTURES.register("dynunet")
class DynUNet(Architecture):
    """The U-Net whose kernels and steps are chosen for each scale and axis.

    It takes other kernels on the way up than nnU-Net's own network, which is
    `plain_conv_unet`.

    Parameters
    ----------
    spatial_dims, in_channels, out_channels
        Spatial axes, channels of the image, channels of the logits.
    kernel_size, strides
        Of each scale, for all axes or for each; at least three scales.
    upsample_kernel_size
        Of each way up: the steps but the first.
    filters
        Channels of each scale; MONAI's own choice if not given.
    norm_name, act_name, res_block, trans_bias
        As MONAI has them.

    References
    ----------
    F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based
    biomedical image segmentation", Nature Methods 18, 2021.
    """

    layouts = {"monai": MONAI}

    spatial_dims: Literal[2, 3]
    in_channels: Count
    out_channels: Count
    kernel_size: tuple[Edges, ...] = Field(min_length=3, max_length=10)
    strides: tuple[Edges, ...] = Field(min_length=3, max_length=10)
    upsample_kernel_size: tuple[Edges, ...] = Field(min_length=2, max_length=9)
    filters: tuple[Count, ...] | None = Field(default=None, max_length=10)
    norm_name: Part = ("INSTANCE", {"affine": True})
    act_name: Part = ("leakyrelu", {"inplace": True, "negative_slope": 0.01})
    res_block: bool = False
    trans_bias: bool = False

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return NETWORK(**dict(self))
