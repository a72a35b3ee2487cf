"""MONAI's residual network, 1-D to 3-D; as torchvision's with the right arguments."""

from typing import Literal

from pydantic import Field
from torch import nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture
from workers.architectures.monai import Axes, Count, Edges, of_monai
from workers.state_dicts import Renamed

NETWORK = of_monai("resnet", "ResNet")


@ARCHITECTURES.register("resnet")
class ResNet(Architecture):
    """Residual blocks of two or three convolutions in four stages.

    It is torchvision's ResNet-18 to -152 with ``spatial_dims: 2``,
    ``n_input_channels: 3``, ``conv1_t_stride: 2`` and ``bias_downsample: false``.

    Parameters
    ----------
    block
        ``basic`` (ResNet-18, -34) or ``bottleneck`` (ResNet-50 and deeper).
    layers
        Blocks of each stage: 2, 2, 2, 2 in ResNet-18; 3, 4, 6, 3 in ResNet-50.
    block_inplanes
        Channels of each stage.
    spatial_dims, n_input_channels, num_classes
        Spatial axes, channels of the image, number of logits.
    conv1_t_size, conv1_t_stride
        Kernel and step of the first convolution.
    no_max_pool
        Whether the maximum after it is left out.
    widen_factor
        Factor of all channels.
    bias_downsample
        Whether the convolutions of shortcuts have a bias.

    References
    ----------
    K. He et al., "Deep residual learning for image recognition", CVPR 2016.
    """

    head = "fc"
    layouts = {"torchvision": Renamed(), "timm": Renamed()}

    block: Literal["basic", "bottleneck"]
    layers: tuple[Count, Count, Count, Count]
    block_inplanes: tuple[Count, Count, Count, Count] = (64, 128, 256, 512)
    spatial_dims: Axes = 3
    n_input_channels: Count = 3
    conv1_t_size: Edges = 7
    conv1_t_stride: Edges = 1
    no_max_pool: bool = False
    widen_factor: float = Field(default=1.0, gt=0, le=16)
    num_classes: Count = 400
    bias_downsample: bool = True

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return NETWORK(**dict(self))
