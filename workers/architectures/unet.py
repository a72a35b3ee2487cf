"""MONAI's U-Net with residual units, 1-D to 3-D."""

from typing import Literal

from pydantic import Field
from torch import nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture
from workers.architectures.monai import Axes, Count, Edges, Part, Share, of_monai

NETWORK = of_monai("unet", "UNet")


@ARCHITECTURES.register("unet")
class UNet(Architecture):
    """A way down and a way up that meet at each scale, with residual units.

    Parameters
    ----------
    spatial_dims, in_channels, out_channels
        Spatial axes, channels of the image, channels of the logits.
    channels, strides
        Channels of each scale; steps between them, one fewer.
    kernel_size, up_kernel_size
        Kernels of the ways down and up.
    num_res_units
        Convolutions of each residual unit; 0 makes plain ones.
    act, norm, bias, adn_ordering
        As MONAI has them.
    dropout
        Of training; without effect here.

    References
    ----------
    E. Kerfoot et al., "Left-ventricle quantification using residual U-Net",
    STACOM 2018.
    """

    spatial_dims: Axes
    in_channels: Count
    out_channels: Count
    channels: tuple[Count, ...] = Field(min_length=2, max_length=10)
    strides: tuple[Edges, ...] = Field(min_length=1, max_length=9)
    kernel_size: Edges = 3
    up_kernel_size: Edges = 3
    num_res_units: int = Field(default=0, ge=0, le=16)
    act: Part = "PRELU"
    norm: Part = "INSTANCE"
    dropout: Share = 0.0
    bias: bool = True
    adn_ordering: Literal["NDA", "NAD", "AND", "ADN", "DNA", "DAN"] = "NDA"

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return NETWORK(**dict(self))
