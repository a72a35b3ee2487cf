"""Whether shapes are there: what a classifier of planted pictures learns, and how well."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.planted.pictures import SHAPES, Picture


def present(pictures: Sequence[Picture]) -> Tensor:
    """Return which of `SHAPES` each picture has, shape ``(N, shapes)``, 0 or 1."""
    return torch.tensor([[float(shape in each.masks) for shape in SHAPES] for each in pictures])


def loss(outputs: Tensor, pictures: Sequence[Picture]) -> Tensor:
    """Return the cross entropy of logits ``(N, shapes)``."""
    return functional.binary_cross_entropy_with_logits(outputs, present(pictures))


def accuracy(network: nn.Module, images: Tensor, pictures: Sequence[Picture]) -> float:
    """Return the share of right answers to whether a shape is there."""
    with torch.no_grad():
        return float(((network(images) > 0) == present(pictures).bool()).double().mean())
