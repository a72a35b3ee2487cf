"""MONAI's densely connected network, 1-D to 3-D; in 2-D the same as torchvision's."""

from pydantic import Field
from torch import nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture
from workers.architectures.monai import Axes, Count, Share, of_monai
from workers.state_dicts import Renamed

NETWORK = of_monai("densenet", "DenseNet")

PUBLISHED = Renamed(
    {
        # files of before torchvision 0.4 write norm.1 for norm1
        r"(features\.denseblock\d+\.denselayer\d+)\.(norm|conv)\.?([12])\.(\w+)": (
            r"\1.layers.\2\3.\4"
        ),
        r"classifier\.(\w+)": r"class_layers.out.\1",
    }
)


@ARCHITECTURES.register("densenet")
class DenseNet(Architecture):
    """Blocks in which each layer sees what all before it put out.

    Parameters
    ----------
    spatial_dims, in_channels, out_channels
        Spatial axes, channels of the image, number of logits.
    init_features
        Channels of the first convolution.
    growth_rate
        Channels that each layer adds.
    block_config
        Layers of each block; those of DenseNet-121 by default.
    bn_size
        Channels within a layer, as a multiple of `growth_rate`.
    dropout_prob
        Of training; without effect here.

    References
    ----------
    G. Huang et al., "Densely connected convolutional networks", CVPR 2017.
    """

    head = "class_layers.out"
    layouts = {"torchvision": PUBLISHED, "timm": PUBLISHED}

    spatial_dims: Axes
    in_channels: Count
    out_channels: Count
    init_features: Count = 64
    growth_rate: Count = 32
    block_config: tuple[Count, ...] = Field(default=(6, 12, 24, 16), min_length=1, max_length=8)
    bn_size: Count = 4
    dropout_prob: Share = 0.0

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return NETWORK(**dict(self))
