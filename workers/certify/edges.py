"""The control: an edge detector, which knows nothing of the model."""

import torch
from torch import Tensor


def edges(image: Tensor) -> Tensor:
    r"""Return the length of the gradient of the brightness, shape ``(1, *spatial)``.

    .. math:: E = \sqrt{\sum_i (\partial_i \bar x)^2}

    by central differences, with :math:`\bar x` the mean of the channels.

    Parameters
    ----------
    image
        Shape ``(C, *spatial)``; each axis of at least two pixels.
    """
    brightness = image.double().mean(0)
    axes = tuple(range(brightness.dim()))
    slopes = torch.gradient(brightness, dim=axes)
    return torch.stack([slope.square() for slope in slopes]).sum(0, keepdim=True).sqrt()
