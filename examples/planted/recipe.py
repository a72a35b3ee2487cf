"""What a model of planted pictures is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from examples.planted.inputs import inputs
from examples.planted.pictures import Picture
from examples.radiographs import MEAN, STD
from service.domain.outputs import Output
from service.domain.variable import Variable
from workers.architectures.base import Architecture


@dataclass(frozen=True)
class Recipe:
    """One model: what it sees, what it is to say, and how its package tells of it."""

    id: str
    title: str
    task: str
    body_part: str
    network: Architecture
    layer: str | None
    """`None` has the layers chosen when the model is loaded."""

    output: Output
    draw: Callable[[int], Picture]
    loss: Callable[[Tensor, Sequence[Picture]], Tensor]
    said: Callable[..., dict[str, Any]]
    """What a self-test expects of a network on one picture's tensors."""

    judged: Callable[[nn.Module, Sequence[Picture]], str]
    """How good a network is on pictures that it was not trained on."""

    card: str
    epochs: int
    rate: float = 1e-2
    pictures: int = 400
    baseline: float = -MEAN / STD
    """Reference value of a pixel, as the network takes it: black, if not given."""

    variables: tuple[Variable, ...] = ()
    """What the network takes beside the picture."""

    def given(self, pictures: Sequence[Picture]) -> tuple[Tensor, ...]:
        """Return the network's tensors of pictures: the images, and the values if it takes any."""
        rows = [
            [each.normalized(each.number(picture.values[each.key])) for each in self.variables]
            for picture in pictures
        ]
        return (inputs(pictures), *([torch.tensor(rows)] if self.variables else []))
