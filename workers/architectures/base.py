"""The allow-list of network constructors.

A model package names one of these and gives its arguments as JSON; it can
name nothing else, so loading a package runs no code of the package.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from typing_extensions import override

from service.registry import Registry
from workers.state_dicts import Layout
from workers.tokens import Tokens


class Architecture(BaseModel, ABC):
    """A network as a value: its fields are the constructor's arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    head: ClassVar[str] = ""
    """Path of the linear module that gives the logits, if a package may replace it."""

    layouts: ClassVar[Mapping[str, Layout]] = {}
    """Published layouts of weights, by name, that this network can be filled from."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode.

        The network maps ``(N, C, *spatial)`` to logits, ``(N, classes)`` or, one for
        each pixel, ``(N, classes, *spatial)``; or to probabilities, which packages must say.
        """

    def tokens(self) -> Tokens | None:
        """Return where a transformer's tokens lie in the image; `None` without tokens."""
        return None


ARCHITECTURES: Registry[Architecture] = Registry("workers.architectures", "whylight.architectures")
"""Architectures by name."""


LAYERS: Final[Mapping[int, tuple[type[nn.Module], type[nn.Module]]]] = MappingProxyType(
    {2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}
)
"""Convolution and normalization by the number of axes."""


class Square(nn.Module):
    """The square as a module: a place for hooks, and known to DeepLIFT."""

    @override
    def forward(self, rows: Tensor) -> Tensor:
        return rows * rows


def plane_block(entry: int, width: int, stride: int) -> nn.Module:
    """Return a convolution within each slice or view, normalized and rectified.

    It takes ``(N, entry, slices, rows, columns)``.
    """
    return nn.Sequential(
        nn.Conv3d(
            entry, width, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False
        ),
        nn.BatchNorm3d(width),
        nn.ReLU(),
    )
