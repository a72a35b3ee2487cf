"""MONAI's EfficientNet, 1-D to 3-D, with the padding and norm of each published kind."""

import re
from typing import Any, Literal

from pydantic import Field
from torch import nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture
from workers.architectures.monai import Axes, Count, of_monai
from workers.state_dicts import Renamed, Weights

NETWORK = of_monai("efficientnet", "EfficientNetBN")

TORCHVISION = Renamed(
    {
        r"features\.0\.0\.(\w+)": r"_conv_stem.\1",
        r"features\.0\.1\.(\w+)": r"_bn0.\1",
        # the last of the features is the head's convolution; blocks were numbered before
        r"features\.\d+\.0\.(weight)": r"_conv_head.\1",
        r"features\.\d+\.1\.(\w+)": r"_bn1.\1",
        r"classifier\.1\.(\w+)": r"_fc.\1",
    }
)
TIMM = Renamed(
    {
        r"conv_stem\.(\w+)": r"_conv_stem.\1",
        r"bn1\.(\w+)": r"_bn0.\1",
        r"conv_head\.(\w+)": r"_conv_head.\1",
        r"bn2\.(\w+)": r"_bn1.\1",
        r"classifier\.(\w+)": r"_fc.\1",
    }
)
NARROW = {  # blocks that do not widen first
    "block.0.0": "_depthwise_conv",
    "block.0.1": "_bn1",
    "block.1.fc1": "_se_reduce",
    "block.1.fc2": "_se_expand",
    "block.2.0": "_project_conv",
    "block.2.1": "_bn2",
    "conv_dw": "_depthwise_conv",
    "bn1": "_bn1",
    "se.conv_reduce": "_se_reduce",
    "se.conv_expand": "_se_expand",
    "conv_pw": "_project_conv",
    "bn2": "_bn2",
}
WIDE = {
    "block.0.0": "_expand_conv",
    "block.0.1": "_bn0",
    "block.1.0": "_depthwise_conv",
    "block.1.1": "_bn1",
    "block.2.fc1": "_se_reduce",
    "block.2.fc2": "_se_expand",
    "block.3.0": "_project_conv",
    "block.3.1": "_bn2",
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "se.conv_reduce": "_se_reduce",
    "se.conv_expand": "_se_expand",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BLOCK = re.compile(r"(?:features|blocks)\.(\d+)\.(\d+)\.((?:block|conv|bn|se)\w*(?:\.\w+)*)\.(\w+)")


def _torchvision(weights: Weights) -> Weights:
    """Return weights of torchvision's layout: its stages count from the stem."""
    return TORCHVISION(_blocks(weights, first=1))


def _timm(weights: Weights) -> Weights:
    return TIMM(_blocks(weights, first=0))


def _blocks(weights: Weights, first: int) -> Weights:
    """Return the weights with MONAI's names for blocks, which it numbers through all stages."""
    fits = {name: fit for name in weights if (fit := BLOCK.fullmatch(name))}
    places = sorted({(int(fit[1]), int(fit[2])) for fit in fits.values()})
    numbers = {place: number for number, place in enumerate(places)}
    found: Weights = {}
    for name, tensor in weights.items():
        fit = fits.get(name)
        if fit is None:
            found[name] = tensor
            continue
        place = (int(fit[1]), int(fit[2]))
        parts = NARROW if place[0] == first else WIDE
        stage = f"_blocks.{place[0] - first}.{numbers[place]}"
        found[f"{stage}.{parts.get(fit[3], fit[3])}.{fit[4]}"] = tensor
    return found


@ARCHITECTURES.register("efficientnet")
class EfficientNet(Architecture):
    """Inverted residual blocks with squeeze and excitation, scaled in depth and width.

    torchvision's and timm's ``efficientnet_b0`` and its like pad evenly
    (``padding: symmetric``, ``epsilon: 1.0e-5``; torchvision from ``b5`` on
    ``1.0e-3``). MONAI's own have the zeros that TensorFlow puts around images of
    the published size (``padding: same``, ``epsilon: 1.0e-3``), whatever the
    image's. timm's ``tf_efficientnet_b0`` and its like go by the image's size, and
    are the same for sides that leave the published one's remainder by 32:
    multiples of 32 for ``b0`` (224), 240 and 208 for ``b1``, 260 for ``b2``, 300
    for ``b3``.

    Parameters
    ----------
    model_name
        Scale of depth and width.
    spatial_dims, in_channels, num_classes
        Spatial axes, channels of the image, number of logits.
    padding
        ``same`` or ``symmetric``: where zeros stand at steps of two.
    epsilon
        Added to the variance in each batch norm.

    References
    ----------
    M. Tan, Q. Le, "EfficientNet: rethinking model scaling for convolutional neural
    networks", ICML 2019.
    """

    head = "_fc"
    layouts = {"torchvision": _torchvision, "timm": _timm}

    model_name: Literal[
        "efficientnet-b0",
        "efficientnet-b1",
        "efficientnet-b2",
        "efficientnet-b3",
        "efficientnet-b4",
        "efficientnet-b5",
        "efficientnet-b6",
        "efficientnet-b7",
    ]
    spatial_dims: Axes = 2
    in_channels: Count = 3
    num_classes: Count = 1000
    padding: Literal["same", "symmetric"] = "same"
    epsilon: float = Field(default=1e-3, gt=0, lt=1)

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        network: Any = NETWORK(
            self.model_name,
            pretrained=False,
            progress=False,
            spatial_dims=self.spatial_dims,
            in_channels=self.in_channels,
            num_classes=self.num_classes,
            norm=("batch", {"eps": self.epsilon, "momentum": 0.01}),
        )
        network.set_swish(memory_efficient=False)  # the other has no second gradient
        if self.padding == "symmetric":
            _pad_evenly(network)
        built: nn.Module = network
        return built


def _pad_evenly(network: nn.Module) -> None:
    """Replace the modules that pad as TensorFlow does by the convolutions' own padding."""
    for module in list(network.modules()):
        for name, convolution in list(module.named_children()):
            if isinstance(convolution, CONVOLUTIONS) and hasattr(module, f"{name}_padding"):
                convolution.padding = tuple(size // 2 for size in convolution.kernel_size)
                setattr(module, f"{name}_padding", nn.Identity())
