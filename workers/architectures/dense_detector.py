"""A small detector without anchors: at every cell of one fine grid classes and a box."""

from typing import Annotated, Final

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture

Width = Annotated[int, Field(ge=1, le=1024)]
Step = Annotated[int, Field(ge=1, le=16)]

RARE: Final = -4.6
"""Logit that training begins with: most cells see nothing, one in a hundred something."""


@ARCHITECTURES.register("dense_detector")
class DenseDetector(Architecture):
    """Convolutions, then two towers: one gives the classes' logits, one the distances to the sides.

    The output is ``(N, classes + 4, rows, columns)``: the logits, then how far left,
    top, right and bottom of the box lie from the cell. Its ``boxes`` in a manifest are
    of layout ``grid``, channels ``classes`` and ``box``, form ``distances``.

    Parameters
    ----------
    channels
        Channels of the image.
    classes
        Number of classes, each with a logit of its own.
    widths, strides, dilations
        Output channels, step and dilation of each convolution.

    References
    ----------
    Z. Tian et al., "FCOS: fully convolutional one-stage object detection", ICCV 2019;
    here with one grid and without centerness.
    """

    channels: Width = 1
    classes: Width
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
        width = shape.widths[-1]
        self.trunk = nn.Sequential(*(_block(*each) for each in plan))
        self.seen, self.measured = _block(width, width), _block(width, width)
        self.classes, self.sides = nn.Conv2d(width, shape.classes, 1), nn.Conv2d(width, 4, 1)
        bias = torch.full((shape.classes,), RARE)
        self.classes.bias = nn.Parameter(bias)

    @override
    def forward(self, image: Tensor) -> Tensor:
        features = self.trunk(image)
        logits: Tensor = self.classes(self.seen(features))
        sides: Tensor = self.sides(self.measured(features))
        return torch.cat([logits, sides], 1)


def _block(entry: int, width: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    """Return a convolution of 3 cells, norm and rectifier."""
    return nn.Sequential(
        nn.Conv2d(entry, width, 3, stride, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )
