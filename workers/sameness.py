"""Whether two answers of one network are the same, up to what runs may differ by."""

from typing import Final

import torch
from torch import Tensor

ALIKE: Final = 1e-3
"""Share of the largest answer by which runs may differ on an accelerator, where a run may
choose another order of adding up, or TF32."""


def same(one: Tensor, other: Tensor, share: float) -> bool:
    """Tell whether two tensors are equal within a share of the second's largest finite value.

    What is no finite number must be the same in both. On an accelerator the share is
    `ALIKE` at least.
    """
    room = share if other.device.type == "cpu" else max(share, ALIKE)
    most = other.detach().nan_to_num(0, 0, 0).abs().max().item()
    return torch.allclose(one, other, rtol=0, atol=room * most, equal_nan=True)
