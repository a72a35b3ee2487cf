"""A small detector without anchors: at every cell of one fine grid classes and a box."""

from typing import Annotated, Final, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, LAYERS, Architecture

Width = Annotated[int, Field(ge=1, le=1024)]
Step = Annotated[int, Field(ge=1, le=16)]

RARE: Final = -4.6
"""Logit that training begins with: most cells see nothing, one in a hundred something."""


@ARCHITECTURES.register("dense_detector")
class DenseDetector(Architecture):
    """Convolutions, then two towers: one gives the classes' logits, one the distances to the sides.

    The output is ``(N, classes + 2 * axes, *cells)``: the logits, then how far left and
    top of the box lie from the cell, of a volume its first slice as well, then right,
    bottom and last slice. Its ``boxes`` in a manifest are of layout ``grid``, channels
    ``classes`` and ``box``, form ``distances``, axes ``xy`` or ``xyz``.

    Parameters
    ----------
    channels
        Channels of the image.
    classes
        Number of classes, each with a logit of its own.
    axes
        2 for images, 3 for volumes.
    widths, strides, dilations
        Output channels, step and dilation of each convolution.

    References
    ----------
    Z. Tian et al., "FCOS: fully convolutional one-stage object detection", ICCV 2019;
    here with one grid and without centerness.
    """

    channels: Width = 1
    classes: Width
    axes: Literal[2, 3] = 2
    widths: tuple[Width, ...] = Field(min_length=1, max_length=64)
    strides: tuple[Step, ...]
    dilations: tuple[Step, ...]

    @model_validator(mode="after")
    def _one_entry_a_convolution(self) -> "DenseDetector":
        if not len(self.widths) == len(self.strides) == len(self.dilations):
            raise ValueError("widths, strides and dilations need one entry for each convolution")
        return self

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return _Network(self)


class _Network(nn.Module):
    """``trunk``, ``seen`` and ``classes``, ``measured`` and ``sides``."""

    def __init__(self, shape: DenseDetector) -> None:
        super().__init__()
        entries = (shape.channels, *shape.widths[:-1])
        plan = zip(entries, shape.widths, shape.strides, shape.dilations, strict=True)
        axes, width = shape.axes, shape.widths[-1]
        convolution, _ = LAYERS[axes]
        self.trunk = nn.Sequential(*(_block(axes, *each) for each in plan))
        self.seen, self.measured = _block(axes, width, width), _block(axes, width, width)
        self.classes = convolution(width, shape.classes, 1)
        self.sides = convolution(width, 2 * axes, 1)
        bias = torch.full((shape.classes,), RARE)
        self.classes.bias = nn.Parameter(bias)

    @override
    def forward(self, image: Tensor) -> Tensor:
        features = self.trunk(image)
        logits: Tensor = self.classes(self.seen(features))
        sides: Tensor = self.sides(self.measured(features))
        return torch.cat([logits, sides], 1)


def _block(axes: int, entry: int, width: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    """Return a convolution of 3 cells, norm and rectifier."""
    convolution, norm = LAYERS[axes]
    return nn.Sequential(
        convolution(entry, width, 3, stride, padding=dilation, dilation=dilation, bias=False),
        norm(width),
        nn.ReLU(),
    )
