"""Networks of well-known sizes with random weights, beside ResNet-50.

ResNet-18 in two and three axes: He et al. (2016), arXiv:1512.03385, table 1.
DenseNet-121: Huang, Liu, van der Maaten, Weinberger (2017). Densely connected
convolutional networks. CVPR, arXiv:1608.06993, table 1.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from typing_extensions import override

from benchmarks.measure import DEVICE

WIDTHS: Final = (64, 128, 256, 512)
DENSE: Final = (6, 12, 24, 16)
GROWTH: Final = 32

CONVOLUTION: Final[dict[int, Any]] = {2: nn.Conv2d, 3: nn.Conv3d}
NORM: Final[dict[int, Any]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LARGEST: Final[dict[int, Any]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
MEAN: Final[dict[int, Any]] = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


class Basic(nn.Module):
    """Two convolutions of kernel 3 beside a shortcut."""

    def __init__(self, axes: int, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        conv, norm = CONVOLUTION[axes], NORM[axes]
        self.conv1 = conv(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = conv(width, width, 3, 1, 1, bias=False)
        self.bn2 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(conv(inputs, width, 1, stride, bias=False), norm(width))

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, *grid)`` to ``(N, width, *grid / stride)``."""
        way = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        way += self.shortcut(x)
        given: Tensor = self.relu(way)
        return given


class ResNet18(nn.Sequential):
    """Eighteen layers, target layer ``layer4``."""

    def __init__(self, axes: int = 2, channels: int = 3, classes: int = 14) -> None:
        super().__init__()
        self.add_module("conv1", CONVOLUTION[axes](channels, 64, 7, 2, 3, bias=False))
        self.add_module("bn1", NORM[axes](64))
        self.add_module("relu", nn.ReLU(inplace=True))
        self.add_module("pool", LARGEST[axes](3, 2, 1))
        inputs = 64
        for number, width in enumerate(WIDTHS, start=1):
            first = Basic(axes, inputs, width, 1 if number == 1 else 2)
            self.add_module(f"layer{number}", nn.Sequential(first, Basic(axes, width, width, 1)))
            inputs = width
        self.add_module("mean", MEAN[axes](1))
        self.add_module("flat", nn.Flatten())
        self.add_module("fc", nn.Linear(inputs, classes))


class Dense(nn.Module):
    """A bottleneck whose output is put beside its input."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.way = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(inputs, 4 * GROWTH, 1, bias=False),
            nn.BatchNorm2d(4 * GROWTH),
            nn.ReLU(inplace=True),
            nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False),
        )

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, inputs, h, w)`` to ``(N, inputs + growth, h, w)``."""
        return torch.cat([x, self.way(x)], 1)


class DenseNet121(nn.Sequential):
    """Four dense blocks, target layer ``norm``."""

    def __init__(self, classes: int = 14) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv2d(3, 64, 7, 2, 3, bias=False))
        self.add_module("bn", nn.BatchNorm2d(64))
        self.add_module("relu", nn.ReLU(inplace=True))
        self.add_module("pool", nn.MaxPool2d(3, 2, 1))
        inputs = 64
        for number, layers in enumerate(DENSE, start=1):
            block = [Dense(inputs + GROWTH * k) for k in range(layers)]
            inputs += GROWTH * layers
            self.add_module(f"block{number}", nn.Sequential(*block))
            if number < len(DENSE):
                self.add_module(f"transition{number}", _transition(inputs))
                inputs //= 2
        self.add_module("norm", nn.BatchNorm2d(inputs))
        self.add_module("last", nn.ReLU())
        self.add_module("mean", nn.AdaptiveAvgPool2d(1))
        self.add_module("flat", nn.Flatten())
        self.add_module("fc", nn.Linear(inputs, classes))


def _transition(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, inputs // 2, 1, bias=False),
        nn.AvgPool2d(2, 2),
    )


def seeded(kind: type[nn.Module], *args: Any, seed: int = 0) -> nn.Module:
    """Return a network in evaluation mode, with norm statistics that are not trivial."""
    torch.manual_seed(seed)
    net = kind(*args).eval()
    for module in net.modules():
        if isinstance(module, tuple(NORM.values())):
            module.get_buffer("running_mean").uniform_(-0.1, 0.1)
            module.get_buffer("running_var").uniform_(0.8, 1.2)
    return net.to(DEVICE)


def noise(shape: Sequence[int], seed: int = 1) -> Tensor:
    """Return an image of standard normal noise, shape ``(C, *spatial)``."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
