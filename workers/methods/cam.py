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
    # thousands of channels of both signs nearly cancel: float32 would lose two digits
    flat = weights.double() @ activations.flatten(1).double()
    return flat.reshape(len(weights), 1, *activations.shape[1:]).to(activations.dtype)
