"""Giving back plain tissue: what an autoencoder of planted pictures learns, and how well."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from examples.planted.inputs import inputs
from examples.planted.pictures import DENSITIES, Picture, plain
from examples.radiographs import MEAN, STD, WIDTH
from workers.deviation import Deviation

BASELINE: Final = (sum(DENSITIES) / 2 / WIDTH - MEAN) / STD
"""Plain tissue of middle density: it is given back, so hiding something by it adds no error."""

RADIUS: Final = 8.0
"""Of the anomalies that it is tried on."""


def loss(outputs: Tensor, pictures: Sequence[Picture]) -> Tensor:
    """Return the mean squared error of what is given back, ``(N, 1, rows, columns)``."""
    return functional.mse_loss(outputs, inputs(pictures))


def errors(network: nn.Module, pictures: Sequence[Picture]) -> NDArray[np.float64]:
    """Return the mean squared error of each picture, shape ``(N,)``."""
    given = inputs(pictures)
    with torch.no_grad():
        return Deviation().said(given, network(given))[:, 0].double().numpy()


def told_apart(network: nn.Module, pictures: Sequence[Picture]) -> float:
    """Return the share of pairs, plain and strange, of which the strange has the larger error."""
    strange = [plain(seed, RADIUS) for seed in range(len(pictures))]
    return float((errors(network, strange)[:, None] > errors(network, pictures)).mean())
