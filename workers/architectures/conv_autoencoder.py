"""A small autoencoder: it gives back what it is given, through a code that holds little."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, LAYERS, Architecture

Width = Annotated[int, Field(ge=1, le=1024)]


@ARCHITECTURES.register("conv_autoencoder")
class ConvAutoencoder(Architecture):
    """Convolutions that halve the grid down to the code, and others that double it up again.

    The edges of the input must be multiples of 2 to the number of `widths`. For task
    ``reconstruction``: its output has the shape of its input.

    Parameters
    ----------
    channels
        Channels of the image.
    axes
        2 for images, 3 for volumes.
    widths
        Channels after each halving; the last are those of the code.

    References
    ----------
    G. E. Hinton and R. R. Salakhutdinov, "Reducing the dimensionality of data with neural
    networks", Science 313, 2006; here of convolutions.
    """

    channels: Width = 1
    axes: Literal[2, 3] = 2
    widths: tuple[Width, ...] = Field(min_length=1, max_length=8)

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return _Network(self)


class _Network(nn.Module):
    """``down``, ``code``, ``up`` and ``head``."""

    def __init__(self, shape: ConvAutoencoder) -> None:
        super().__init__()
        *inner, code = shape.widths
        convolution, _ = LAYERS[shape.axes]
        entries = (shape.channels, *inner)
        exits = (*reversed(inner), inner[0] if inner else code)
        self.down = nn.Sequential(
            *(_block(shape.axes, *each, stride=2) for each in zip(entries[:-1], inner, strict=True))
        )
        self.code = convolution(entries[-1], code, 3, 2, padding=1)
        self.up = nn.Sequential(
            *(
                nn.Sequential(nn.Upsample(scale_factor=2), _block(shape.axes, *each))
                for each in zip((code, *exits[:-1]), exits, strict=True)
            )
        )
        self.head = convolution(exits[-1], shape.channels, 3, padding=1)

    @override
    def forward(self, image: Tensor) -> Tensor:
        given_back: Tensor = self.head(self.up(self.code(self.down(image))))
        return given_back


def _block(axes: int, entry: int, width: int, stride: int = 1) -> nn.Module:
    """Return a convolution of 3 cells, norm and rectifier."""
    convolution, norm = LAYERS[axes]
    return nn.Sequential(
        convolution(entry, width, 3, stride, padding=1, bias=False), norm(width), nn.ReLU()
    )
