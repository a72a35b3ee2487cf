"""A bag of instances, the slices of a volume, pooled by attention to one score."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture, Square, plane_block

Width = Annotated[int, Field(ge=1, le=1024)]


@ARCHITECTURES.register("attention_mil")
class AttentionMil(Architecture):
    r"""Each slice seen by itself; then a mean over slices, weighted by attention.

    .. math:: s = W \sum_i a_i h_i + b, \qquad
              a = \mathrm{softmax}_i \left( w^T \tanh(V h_i) \right)

    with `h` the mean over each slice of squared features (layer ``peaks``, which keeps the
    slices apart). A bag may have any number of slices. Their weights are put out by the
    module ``attention``, one for each slice, with the sum 1.

    Numbers beside the image join the mean over slices, in front of a rectified layer
    (``meet``) and the head: they belong to the patient and not to a slice, so they have no
    part in the attention.

    Parameters
    ----------
    channels
        Channels of a slice.
    classes
        Number of logits.
    widths
        Channels after each convolution; the first halves a slice's rows and columns.
    hidden
        Width of the layer by which attention is given, and of that in which the mean over
        slices and numbers meet.
    variables
        Numbers beside the image.

    References
    ----------
    Ilse, Tomczak, Welling (2018). Attention-based deep multiple instance learning. ICML.
    arXiv:1802.04712, eq. 7 and 8.
    """

    head = "head"

    channels: Width = 1
    classes: Width
    widths: tuple[Width, ...] = Field(default=(8, 16), min_length=1, max_length=16)
    hidden: Width = 8
    variables: int = Field(default=0, ge=0, le=64)

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return _Network(self)


class _Network(nn.Module):
    """``features``, ``peaks``, mean over each slice, ``weigh``, ``attention``, ``head``.

    With numbers beside the image ``meet`` stands before ``head``.
    """

    def __init__(self, shape: AttentionMil) -> None:
        super().__init__()
        entries = (shape.channels, *shape.widths[:-1])
        self.features = nn.Sequential(
            *(
                plane_block(entry, width, 2 if number == 0 else 1)
                for number, (entry, width) in enumerate(zip(entries, shape.widths, strict=True))
            )
        )
        self.peaks = Square()
        self.weigh = nn.Sequential(
            nn.Linear(shape.widths[-1], shape.hidden), nn.Tanh(), nn.Linear(shape.hidden, 1)
        )
        self.attention = nn.Softmax(dim=1)
        self.meet, pooled = nn.Sequential(), shape.widths[-1]
        if shape.variables:
            self.meet = nn.Sequential(nn.Linear(pooled + shape.variables, shape.hidden), nn.ReLU())
            pooled = shape.hidden
        self.head = nn.Linear(pooled, shape.classes)

    @override
    def forward(self, bag: Tensor, *values: Tensor) -> Tensor:
        seen = self.peaks(self.features(bag)).flatten(3).mean(dim=3).movedim(1, 2)
        attention = self.attention(self.weigh(seen)[:, :, 0])
        mean = (attention[:, :, None] * seen).sum(dim=1)
        logits: Tensor = self.head(self.meet(torch.cat([mean, *values], dim=1)))
        return logits
