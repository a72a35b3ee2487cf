"""What class activation maps share: channels of a layer, summed with weights."""

from torch import Tensor


def weighted(activations: Tensor, weights: Tensor) -> Tensor:
    """Return the signed sum over channels.

    Parameters
    ----------
    activations
        A layer's output on one row, shape ``(channels, *grid)``.
    weights
        One weight to a channel and target, shape ``(K, channels)``.

    Returns
    -------
    Tensor
        Shape ``(K, 1, *grid)``.
    """
    flat = weights @ activations.flatten(1)
    return flat.reshape(len(weights), 1, *activations.shape[1:])
