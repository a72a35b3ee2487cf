"""The plain U-Net of nnU-Net, 2-D and 3-D."""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Final, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture
from workers.state_dicts import Renamed, Weights

Count = Annotated[int, Field(ge=1, le=4096)]
Edges = tuple[Count, ...]
Kinds = Mapping[int, Callable[..., nn.Module]]
Scales = Annotated[tuple[Edges, ...], Field(min_length=2, max_length=10)]
CONVOLUTIONS: Final[Kinds] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: Final[Kinds] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS: Final[Kinds] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
"""By number of spatial axes."""

SLOPE: Final = 0.01
HEADS: Final = re.compile(r"decoder\.seg_layers\.(\d+)\.\w+")


def _nnunet(weights: Weights) -> Weights:
    """Return weights of nnU-Net's checkpoints: without second names and heads of training."""
    finest = max((int(fit[1]) for name in weights if (fit := HEADS.fullmatch(name))), default=0)
    return Renamed(
        {
            r"encoder\.stages\.(\d+)\.0\.convs\.(\d+)\.(\w+\.\w+)": r"down.\1.\2.\3",
            r"decoder\.transpconvs\.(\d+)\.(\w+)": r"up.\1.grow.\2",
            r"decoder\.stages\.(\d+)\.convs\.(\d+)\.(\w+\.\w+)": r"up.\1.blocks.\2.\3",
            rf"decoder\.seg_layers\.{finest}\.(\w+)": r"head.\1",
        },
        without=rf"decoder\.encoder\..*|.*\.all_modules\..*|decoder\.seg_layers\.(?!{finest}\.).*",
    )(weights)


@ARCHITECTURES.register("plain_conv_unet")
class PlainConvUNet(Architecture):
    """Convolutions, instance norms and leaky rectifiers, down and up again.

    Parameters bear the names of nnU-Net's plans.

    Parameters
    ----------
    input_channels, num_classes
        Channels of the image, channels of the logits.
    features_per_stage, kernel_sizes, strides
        Of each scale, the finest first; kernels and steps along each axis.
    n_conv_per_stage, n_conv_per_stage_decoder
        Convolutions of each scale on the ways down and up.
    conv_bias
        Whether convolutions have a bias.

    References
    ----------
    F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based
    biomedical image segmentation", Nature Methods 18, 2021.
    """

    layouts = {"nnunet": _nnunet}

    input_channels: Count
    num_classes: Count
    features_per_stage: tuple[Count, ...]
    kernel_sizes: Scales
    strides: Scales
    n_conv_per_stage: tuple[Count, ...]
    n_conv_per_stage_decoder: tuple[Count, ...]
    conv_bias: bool = True

    @model_validator(mode="after")
    def _one_entry_a_scale(self) -> "PlainConvUNet":
        scales = len(self.features_per_stage)
        if not len(self.kernel_sizes) == len(self.strides) == len(self.n_conv_per_stage) == scales:
            raise ValueError("features, kernels, strides and convolutions need one entry a scale")
        if len(self.n_conv_per_stage_decoder) != scales - 1:
            raise ValueError("the way up has one scale fewer")
        if {len(each) for each in (*self.kernel_sizes, *self.strides)} not in ({2}, {3}):
            raise ValueError("kernels and strides need two or three numbers each, all alike")
        return self

    @property
    def axes(self) -> Literal[2, 3]:
        """Number of spatial axes."""
        return 2 if len(self.strides[0]) == len((0, 1)) else 3

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return _Network(self)


class _Network(nn.Module):
    """``down.0`` … ``down.n``, ``up.0`` … ``up.n-1``, ``head``."""

    def __init__(self, shape: PlainConvUNet) -> None:
        super().__init__()
        features, last = shape.features_per_stage, len(shape.features_per_stage) - 1
        entries = (shape.input_channels, *features[:-1])
        self.down = nn.ModuleList(
            _blocks(
                shape, scale, entries[scale], shape.n_conv_per_stage[scale], shape.strides[scale]
            )
            for scale in range(last + 1)
        )
        self.up = nn.ModuleList(
            _Up(shape, scale, shape.n_conv_per_stage_decoder[last - 1 - scale])
            for scale in reversed(range(last))
        )
        self.head = CONVOLUTIONS[shape.axes](features[0], shape.num_classes, 1)

    @override
    def forward(self, image: Tensor) -> Tensor:
        seen = []
        for stage in self.down:
            image = stage(image)
            seen.append(image)
        for stage, finer in zip(self.up, reversed(seen[:-1]), strict=True):
            image = stage(image, finer)
        logits: Tensor = self.head(image)
        return logits


class _Up(nn.Module):
    """What comes from below grows and meets what was seen at its scale on the way down."""

    def __init__(self, shape: PlainConvUNet, scale: int, blocks: int) -> None:
        super().__init__()
        width, below = shape.features_per_stage[scale : scale + 2]
        steps = shape.strides[scale + 1]
        self.grow = TRANSPOSED[shape.axes](below, width, steps, steps, bias=shape.conv_bias)
        self.blocks = _blocks(shape, scale, 2 * width, blocks, (1,) * shape.axes)

    @override
    def forward(self, below: Tensor, seen: Tensor) -> Tensor:
        features: Tensor = self.blocks(torch.cat([self.grow(below), seen], 1))
        return features


class _Block(nn.Module):
    """Convolution, norm, leaky rectifier."""

    def __init__(self, shape: PlainConvUNet, scale: int, entry: int, steps: Edges) -> None:
        super().__init__()
        width, kernel = shape.features_per_stage[scale], shape.kernel_sizes[scale]
        padding = tuple((edge - 1) // 2 for edge in kernel)
        self.conv = CONVOLUTIONS[shape.axes](
            entry, width, kernel, steps, padding, bias=shape.conv_bias
        )
        self.norm = NORMS[shape.axes](width, affine=True)
        self.rectify = nn.LeakyReLU(SLOPE)

    @override
    def forward(self, image: Tensor) -> Tensor:
        rectified: Tensor = self.rectify(self.norm(self.conv(image)))
        return rectified


def _blocks(
    shape: PlainConvUNet, scale: int, entry: int, count: int, steps: Edges
) -> nn.Sequential:
    """Return the blocks of one scale; the first one takes the steps."""
    width = shape.features_per_stage[scale]
    entries = [entry, *[width] * (count - 1)]
    paces = [steps, *[(1,) * shape.axes] * (count - 1)]
    return nn.Sequential(
        *(_Block(shape, scale, each, pace) for each, pace in zip(entries, paces, strict=True))
    )
