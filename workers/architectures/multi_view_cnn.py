"""Several views of one study, each seen by itself, joined for one answer."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture, Square, plane_block

Width = Annotated[int, Field(ge=1, le=1024)]


@ARCHITECTURES.register("multi_view_cnn")
class MultiViewCnn(Architecture):
    r"""Each view through one trunk; then a linear head over the means of all views.

    .. math:: s = b + \sum_v W_v h_v

    with :math:`h_v` the mean over view `v` of squared features (layer ``peaks``, which keeps the
    views apart). The head has weights of its own for each view.

    Numbers beside the views join their means, in front of a rectified layer (``meet``) and the
    head.

    Parameters
    ----------
    views
        How many views there are, in the order of the manifest.
    channels
        Channels of a view.
    classes
        Number of logits.
    widths
        Channels after each convolution; the first halves a view's rows and columns.
    hidden
        Width of the layer in which views and numbers meet.
    variables
        Numbers beside the views.

    References
    ----------
    Wu et al. (2020). Deep neural networks improve radiologists' performance in breast cancer
    screening. IEEE Trans. Med. Imaging. arXiv:1903.08297: views are seen each by itself and joined
    for one answer.
    """

    head = "head"

    views: Annotated[int, Field(ge=2, le=8)]
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
    """``features``, ``peaks``, mean over each view, ``head``.

    With numbers beside the views ``meet`` stands before ``head``.
    """

    def __init__(self, shape: MultiViewCnn) -> None:
        super().__init__()
        entries = (shape.channels, *shape.widths[:-1])
        self.features = nn.Sequential(
            *(
                plane_block(entry, width, 2 if number == 0 else 1)
                for number, (entry, width) in enumerate(zip(entries, shape.widths, strict=True))
            )
        )
        self.peaks = Square()
        self.meet, pooled = nn.Sequential(), shape.views * shape.widths[-1]
        if shape.variables:
            self.meet = nn.Sequential(nn.Linear(pooled + shape.variables, shape.hidden), nn.ReLU())
            pooled = shape.hidden
        self.head = nn.Linear(pooled, shape.classes)

    @override
    def forward(self, views: Tensor, *values: Tensor) -> Tensor:
        seen = self.peaks(self.features(views)).flatten(3).mean(dim=3)
        means = seen.movedim(1, 2).flatten(1)
        logits: Tensor = self.head(self.meet(torch.cat([means, *values], dim=1)))
        return logits
