"""A convolutional network built like a transformer, 1-D to 3-D."""

from itertools import pairwise
from typing import Annotated, Final, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture
from workers.state_dicts import Renamed, Weights

Width = Annotated[int, Field(ge=1, le=4096)]
CONVOLUTIONS: Final = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""By number of spatial axes."""

EPSILON: Final = 1e-6
FIRST_SCALE: Final = 1e-6
STAGES: Final = 5
"""At most."""

TIMM: Final = Renamed(
    {
        r"stem\.0\.(\w+)": r"stem.lift.\1",
        r"stem\.1\.(\w+)": r"stem.norm.\1",
        r"stages\.(\d+)\.downsample\.0\.(\w+)": r"stages.\1.merge.norm.\2",
        r"stages\.(\d+)\.downsample\.1\.(\w+)": r"stages.\1.merge.lift.\2",
        r"stages\.(\d+)\.blocks\.(\d+)\.conv_dw\.(\w+)": r"stages.\1.blocks.\2.around.\3",
        r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc1\.(\w+)": r"stages.\1.blocks.\2.perceptron.0.\3",
        r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc2\.(\w+)": r"stages.\1.blocks.\2.perceptron.2.\3",
        r"stages\.(\d+)\.blocks\.(\d+)\.gamma": r"stages.\1.blocks.\2.scale",
        r"head\.norm\.(\w+)": r"norm.\1",
        r"head\.fc\.(\w+)": r"head.\1",
    }
)


def _torchvision(weights: Weights) -> Weights:
    """Return weights of torchvision's layout: stages and mergings take turns in ``features``."""
    parts = {
        r"block\.0\.(\w+)": r"around.\2",
        r"block\.2\.(\w+)": r"norm.\2",
        r"block\.3\.(\w+)": r"perceptron.0.\2",
        r"block\.5\.(\w+)": r"perceptron.2.\2",
        r"layer_scale()": r"scale",
    }
    blocks = {
        rf"features\.{2 * k + 1}\.(\d+)\.{part}": rf"stages.{k}.blocks.\1.{own}"
        for k in range(STAGES)
        for part, own in parts.items()
    }
    merges = {
        rf"features\.{2 * k}\.{number}\.(\w+)": rf"stages.{k}.merge.{own}.\1"
        for k in range(1, STAGES)
        for number, own in enumerate(("norm", "lift"))
    }
    ends = {
        r"features\.0\.0\.(\w+)": r"stem.lift.\1",
        r"features\.0\.1\.(\w+)": r"stem.norm.\1",
        r"classifier\.0\.(\w+)": r"norm.\1",
        r"classifier\.2\.(\w+)": r"head.\1",
    }
    shaped = {r"stages\..*\.scale": torch.flatten}
    return Renamed(ends | blocks | merges, shaped=shaped)(weights)


@ARCHITECTURES.register("convnext")
class ConvNeXt(Architecture):
    r"""Wide convolutions of each channel, and a perceptron of all channels at each place.

    The image is cut into patches; each block adds to the features what a
    convolution of each channel alone, a norm over the channels and a perceptron
    make of them, scaled by a learned number for each channel. Between two stages
    2 x 2 (in volumes 2 x 2 x 2) places become one. The score is read off the mean
    over the grid, after a norm, by a linear head.

    Parameters
    ----------
    channels
        Channels of the image.
    classes
        Number of logits.
    axes
        Spatial axes.
    patch
        Edge of a patch.
    widths, depths
        Channels and blocks of each stage; those of ConvNeXt-T by default.
    kernel
        Edge of the wide convolutions, odd.
    hidden
        Hidden units of the perceptron, as a multiple of the stage's width.

    References
    ----------
    Z. Liu et al., "A ConvNet for the 2020s", CVPR 2022. arXiv:2201.03545.
    """

    head = "head"
    layouts = {"torchvision": _torchvision, "timm": TIMM}

    channels: Width = 1
    classes: Width
    axes: Literal[1, 2, 3] = 2
    patch: Width = 4
    widths: tuple[Width, ...] = Field(default=(96, 192, 384, 768), min_length=1, max_length=STAGES)
    depths: tuple[Width, ...] = Field(default=(3, 3, 9, 3), min_length=1, max_length=STAGES)
    kernel: int = Field(default=7, ge=1, le=31)
    hidden: int = Field(default=4, ge=1, le=8)

    @model_validator(mode="after")
    def _fits_together(self) -> "ConvNeXt":
        if len(self.widths) != len(self.depths):
            raise ValueError("widths and depths must have one entry for each stage")
        if self.kernel % 2 == 0:
            raise ValueError("kernel must be odd")
        return self

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return _Network(self)


class _Network(nn.Module):
    """``stem``, ``stages.0`` … ``stages.n``, mean over the grid, ``norm``, ``head``."""

    def __init__(self, shape: ConvNeXt) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[shape.axes]
        first, last = shape.widths[0], shape.widths[-1]
        self.stem = _Lift(convolution(shape.channels, first, shape.patch, shape.patch), first)
        merges = [
            _Merge(convolution(narrow, wide, 2, 2), narrow)
            for narrow, wide in pairwise(shape.widths)
        ]
        stages = zip([nn.Identity(), *merges], shape.widths, shape.depths, strict=True)
        self.stages = nn.Sequential(
            *(
                _Stage(merge, [_Block(shape, width) for _ in range(depth)])
                for merge, width, depth in stages
            )
        )
        self.norm = nn.LayerNorm(last, EPSILON)
        self.head = nn.Linear(last, shape.classes)

    @override
    def forward(self, image: Tensor) -> Tensor:
        features = self.stages(self.stem(image)).flatten(2).mean(2)
        logits: Tensor = self.head(self.norm(features))
        return logits


class _Norm(nn.LayerNorm):
    """A norm over the channels at each place."""

    @override
    def forward(self, image: Tensor) -> Tensor:
        normed: Tensor = super().forward(image.movedim(1, -1))
        return normed.movedim(-1, 1)


class _Lift(nn.Module):
    """Patches to features, then their norm."""

    def __init__(self, lift: nn.Module, width: int) -> None:
        super().__init__()
        self.lift = lift
        self.norm = _Norm(width, EPSILON)

    @override
    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.norm(self.lift(image))
        return features


class _Merge(nn.Module):
    """The norm of features, then two places along each axis become one."""

    def __init__(self, lift: nn.Module, width: int) -> None:
        super().__init__()
        self.norm = _Norm(width, EPSILON)
        self.lift = lift

    @override
    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.lift(self.norm(image))
        return features


class _Stage(nn.Module):
    """Features of the stage before are merged; then blocks on one grid."""

    def __init__(self, merge: nn.Module, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.merge = merge
        self.blocks = nn.Sequential(*blocks)

    @override
    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.blocks(self.merge(image))
        return features


class _Block(nn.Module):
    """Each channel's surroundings, then all channels of a place, beside a shortcut."""

    def __init__(self, shape: ConvNeXt, width: int) -> None:
        super().__init__()
        self.around = CONVOLUTIONS[shape.axes](
            width, width, shape.kernel, padding=shape.kernel // 2, groups=width
        )
        self.norm = nn.LayerNorm(width, EPSILON)
        self.perceptron = nn.Sequential(
            nn.Linear(width, shape.hidden * width),
            nn.GELU(),
            nn.Linear(shape.hidden * width, width),
        )
        self.scale = nn.Parameter(torch.full((width,), FIRST_SCALE))

    @override
    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.perceptron(self.norm(self.around(image).movedim(1, -1)))
        return image + (features * self.scale).movedim(-1, 1)
