"""Weights and images that can be drawn again at any time: a tensor's name is its seed."""

import hashlib
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def drawn(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return float64 tensors of these shapes; norms scale about 1, variances are positive."""
    return {name: _tensor(name, tuple(shape)) for name, shape in shapes.items()}


def image(shape: Sequence[int]) -> Tensor:
    """Return one image, ``(1, C, *spatial)``, float64."""
    return _normal("image", (1, *shape))


def _tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    last = name.rpartition(".")[2]
    values = _normal(name, shape)
    if last == "running_var":
        return values.abs() + 0.5
    if last in {"layer_scale", "gamma"} or (last == "weight" and len(shape) == 1):
        return 1 + 0.2 * values
    if len(shape) > 1 and last == "weight":
        return values * math.sqrt(2 / math.prod(shape[1:]))
    return 0.2 * values


def _normal(name: str, shape: tuple[int, ...]) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
