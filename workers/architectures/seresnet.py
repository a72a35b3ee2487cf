"""MONAI's residual networks with squeeze and excitation, 1-D to 3-D."""

from typing import Literal

from torch import nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture
from workers.architectures.monai import Axes, Count, of_monai
from workers.state_dicts import Renamed, squeezed

NETWORK = of_monai("senet", "SENet")

CADENE = Renamed(
    {
        r"(layer[1-4]\.\d+\.conv\d)\.(\w+)": r"\1.conv.\2",
        r"(layer[1-4]\.\d+)\.bn(\d)\.(\w+)": r"\1.conv\2.adn.N.\3",
        r"(layer[1-4]\.\d+)\.se_module\.fc1\.(\w+)": r"\1.se_layer.fc.0.\2",
        r"(layer[1-4]\.\d+)\.se_module\.fc2\.(\w+)": r"\1.se_layer.fc.2.\2",
        r"(layer[1-4]\.\d+)\.downsample\.0\.(\w+)": r"\1.project.conv.\2",
        r"(layer[1-4]\.\d+)\.downsample\.1\.(\w+)": r"\1.project.adn.N.\2",
    },
    shaped={r".*\.se_layer\.fc\.\d\.weight": squeezed},
)


@ARCHITECTURES.register("seresnet")
class SEResNet(Architecture):
    """Residual blocks whose channels are weighted by what they hold on the whole.

    Parameters
    ----------
    spatial_dims, in_channels, num_classes
        Spatial axes, channels of the image, number of logits.
    block
        ``se_resnet_bottleneck`` (SE-ResNet-50 to -152), ``se_resnetxt_bottleneck``
        (SE-ResNeXt) or ``se_bottleneck`` (SENet-154).
    layers
        Blocks of each stage: 3, 4, 6, 3 in SE-ResNet-50.
    groups, reduction, inplanes, downsample_kernel_size, input_3x3
        As MONAI has them; those of SE-ResNet by default.

    References
    ----------
    J. Hu et al., "Squeeze-and-excitation networks", CVPR 2018.
    """

    head = "last_linear"
    layouts = {"timm": CADENE}

    spatial_dims: Axes
    in_channels: Count
    num_classes: Count
    block: Literal["se_bottleneck", "se_resnet_bottleneck", "se_resnetxt_bottleneck"] = (
        "se_resnet_bottleneck"
    )
    layers: tuple[Count, Count, Count, Count] = (3, 4, 6, 3)
    groups: Count = 1
    reduction: Count = 16
    inplanes: Count = 64
    downsample_kernel_size: Count = 1
    input_3x3: bool = False

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return NETWORK(**dict(self))
