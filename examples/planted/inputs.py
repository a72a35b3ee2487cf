"""What models see of planted pictures."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.planted.pictures import Picture
from examples.radiographs import seen


def prepared(picture: Picture) -> NDArray[np.float32]:
    """Return the model's input of a picture, shape ``(1, SMALL, SMALL)``."""
    return seen(picture.stored)[None]


def inputs(pictures: Sequence[Picture]) -> Tensor:
    """Return models' inputs, shape ``(N, 1, SMALL, SMALL)``."""
    return torch.from_numpy(np.stack(list(map(prepared, pictures))))
