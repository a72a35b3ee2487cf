"""A small residual network for images and volumes, with a fine last grid."""

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, LAYERS, Architecture, Square

Width = Annotated[int, Field(ge=1, le=1024)]
Stride = Annotated[int, Field(ge=1, le=4)]
Dilation = Annotated[int, Field(ge=1, le=16)]


@ARCHITECTURES.register("residual_cnn")
class ResidualCnn(Architecture):
    r"""Residual blocks, squared features, global average pooling, a linear head.

    .. math:: s_k = b_k + \sum_c w_{kc} \, \frac{1}{|G|} \sum_{g \in G} f_c(g)^2

    The head is linear in the mean of the squared features (layer ``peaks``),
    so class activation maps, Grad-CAM and HiResCAM of that layer agree
    exactly. Squaring pays for the height of a peak and not for its area alone:
    without it a network spreads its evidence over the whole receptive field.
    Dilated blocks widen that field without coarsening the grid, so that a map
    still resolves small findings.

    Numbers beside the image join the means, in front of a rectified layer (``meet``) and
    the head: what a number adds can then depend on what is seen, and the head is linear in
    the means no more.

    Parameters
    ----------
    channels
        Channels of the image.
    classes
        Number of logits.
    axes
        2 for images, 3 for volumes.
    stem
        Channels after the first convolution, which halves the image.
    widths, strides, dilations
        Output channels, step and dilation of each residual block.
    variables
        Numbers beside the image.
    hidden
        Width of the layer in which image and numbers meet.

    References
    ----------
    K. He et al., "Deep residual learning for image recognition", CVPR 2016; on numbers joined
    late S.-C. Huang et al., npj Digital Medicine 3:136, 2020.
    """

    head = "head"

    channels: Width = 1
    classes: Width
    axes: Literal[2, 3] = 2
    stem: Width = 16
    widths: tuple[Width, ...] = Field(min_length=1, max_length=64)
    strides: tuple[Stride, ...]
    dilations: tuple[Dilation, ...]
    variables: int = Field(default=0, ge=0, le=64)
    hidden: Width = 16

    @model_validator(mode="after")
    def _one_entry_a_block(self) -> "ResidualCnn":
        if not len(self.widths) == len(self.strides) == len(self.dilations):
            raise ValueError("widths, strides and dilations need one entry for each block")
        return self

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return _Joined(self) if self.variables else _Network(self)


class _Trunk(nn.Module):
    """Stem, ``blocks.0`` … ``blocks.n``, ``peaks``, mean over the grid."""

    def __init__(self, shape: ResidualCnn) -> None:
        super().__init__()
        convolution, norm = LAYERS[shape.axes]
        self.stem = nn.Sequential(
            convolution(shape.channels, shape.stem, 3, stride=2, padding=1, bias=False),
            norm(shape.stem),
            nn.ReLU(),
        )
        entries = (shape.stem, *shape.widths[:-1])
        plan = zip(entries, shape.widths, shape.strides, shape.dilations, strict=True)
        self.blocks = nn.Sequential(*(_Block(shape.axes, *block) for block in plan))
        self.peaks = Square()

    def means(self, image: Tensor) -> Tensor:
        """Return each channel's mean over the grid, shape ``(N, channels)``."""
        peaks: Tensor = self.peaks(self.blocks(self.stem(image)))
        return peaks.flatten(2).mean(dim=2)


class _Network(_Trunk):
    """The trunk and a head."""

    def __init__(self, shape: ResidualCnn) -> None:
        super().__init__(shape)
        self.head = nn.Linear(shape.widths[-1], shape.classes)

    @override
    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.means(image))
        return logits


class _Joined(_Trunk):
    """The trunk, numbers beside its means, ``meet``, and a head."""

    def __init__(self, shape: ResidualCnn) -> None:
        super().__init__(shape)
        joined = shape.widths[-1] + shape.variables
        self.meet = nn.Sequential(nn.Linear(joined, shape.hidden), nn.ReLU())
        self.head = nn.Linear(shape.hidden, shape.classes)

    @override
    def forward(self, image: Tensor, *values: Tensor) -> Tensor:
        logits: Tensor = self.head(self.meet(torch.cat([self.means(image), *values], dim=1)))
        return logits


class _Block(nn.Module):
    """Two convolutions of 3 cells beside a shortcut; the output is rectified."""

    def __init__(self, axes: int, entry: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        convolution, norm = LAYERS[axes]
        around = {"padding": dilation, "dilation": dilation, "bias": False}
        self.body = nn.Sequential(
            convolution(entry, width, 3, stride=stride, **around),
            norm(width),
            nn.ReLU(),
            convolution(width, width, 3, **around),
            norm(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if entry != width or stride != 1:
            self.shortcut = nn.Sequential(
                convolution(entry, width, 1, stride=stride, bias=False), norm(width)
            )
        self.rectify = nn.ReLU()

    @override
    def forward(self, image: Tensor) -> Tensor:
        rectified: Tensor = self.rectify(self.body(image) + self.shortcut(image))
        return rectified
