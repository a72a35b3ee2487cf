"""Where shapes are: what a segmentation of planted pictures learns, and how well."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from examples.planted.inputs import inputs
from examples.planted.pictures import SHAPES, Picture
from examples.radiographs import SMALL, shrunk


def labels(pictures: Sequence[Picture]) -> NDArray[np.int64]:
    """Return the class of each of the inputs' pixels: 0 for none, else the shape's number.

    Shape ``(N, SMALL, SMALL)``.
    """
    found = np.zeros((len(pictures), SMALL, SMALL), np.int64)
    for picture, classes in zip(pictures, found, strict=True):
        for number, shape in enumerate(SHAPES, 1):
            if shape in picture.masks:
                classes[shrunk(picture.masks[shape]) >= 0.5] = number
    return found


def loss(outputs: Tensor, pictures: Sequence[Picture]) -> Tensor:
    """Return the cross entropy of logits ``(N, classes, SMALL, SMALL)``."""
    return functional.cross_entropy(outputs, torch.from_numpy(labels(pictures)))


def overlap(network: nn.Module, pictures: Sequence[Picture]) -> float:
    """Return the Dice overlap of all pixels of both shapes together."""
    with torch.no_grad():
        found = network(inputs(pictures)).argmax(1).numpy()
    truth = labels(pictures)
    right = ((found == truth) & (truth > 0)).sum()
    return float(2 * right / ((found > 0).sum() + (truth > 0).sum()))
