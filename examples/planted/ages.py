"""The bone age of hands: what a regression of planted pictures learns, and how well."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.planted.pictures import Picture
from examples.planted.recipe import Recipe

SLOPE, INTERCEPT = 52.0, 114.0
"""From what the network puts out to months."""


def loss(outputs: Tensor, pictures: Sequence[Picture]) -> Tensor:
    """Return the distance of outputs ``(N, 1)`` from the ages, both before `SLOPE`."""
    ages = torch.tensor([[each.age] for each in pictures])
    return functional.smooth_l1_loss(outputs, (ages - INTERCEPT) / SLOPE)


def error(recipe: Recipe, network: nn.Module, pictures: Sequence[Picture]) -> float:
    """Return the mean error of the bone age, in months."""
    with torch.no_grad():
        ages = SLOPE * network(*recipe.given(pictures))[:, 0].numpy() + INTERCEPT
    return float(np.abs(ages - [each.age for each in pictures]).mean())
