"""A plain ResNet-50 with random weights: 23.5 million parameters, 4.1 GMAC at 224 pixels.

He, Zhang, Ren, Sun (2016). Deep residual learning for image recognition. CVPR,
arXiv:1512.03385, table 1; the stride stands on the 3x3 convolution, as is usual.
"""

from typing import Final

import torch
from torch import Tensor, nn
from typing_extensions import override

from benchmarks.measure import DEVICE

STAGES: Final = ((64, 3), (128, 4), (256, 6), (512, 3))
EXPANSION: Final = 4
TARGET_LAYER: Final = "layer4"


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, h, w)`` to ``(N, 4 width, h / stride, w / stride)``."""
        way = self.relu(self.bn1(self.conv1(x)))
        way = self.relu(self.bn2(self.conv2(way)))
        way = self.bn3(self.conv3(way))
        way += self.shortcut(x)
        given: Tensor = self.relu(way)
        return given


class ResNet50(nn.Module):
    """Fifty layers, `classes` logits."""

    def __init__(self, classes: int = 14) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        inputs = 64
        for number, (width, blocks) in enumerate(STAGES, start=1):
            stride = 1 if number == 1 else 2
            stage = []
            for block in range(blocks):
                stage.append(Bottleneck(inputs, width, stride if block == 0 else 1))
                inputs = width * EXPANSION
            self.add_module(f"layer{number}", nn.Sequential(*stage))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, 3, h, w)`` to logits ``(N, classes)``."""
        x = self.stem(x)
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def resnet50(seed: int = 0) -> ResNet50:
    """Return the network in evaluation mode, with norm statistics that are not trivial."""
    torch.manual_seed(seed)
    net = ResNet50().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.8, 1.2)  # type: ignore[union-attr]
    return net.to(DEVICE)
