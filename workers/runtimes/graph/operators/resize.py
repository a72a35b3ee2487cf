"""Resizing, and cells turned into channels and back.

Interpolation is separable: along each axis every output is a weighted sum of
inputs. The weights are written down as a matrix, from the standard's text, so
that each mode is the same few lines whatever its coordinates are.
"""

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from workers.runtimes.graph.operators.base import along, axis_of, ints, only, operator, sized

REACH: Final = {"linear": 1, "cubic": 2}
"""Inputs to each side that an output is made of, at most."""


@operator("Resize")
def resize(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """Return a tensor on another grid."""
    where = [axis_of(each, x.dim()) for each in axes] if axes else list(range(x.dim()))
    edge = len(where)
    factors, lengths = _target(x, where, scales, sizes, keep_aspect_ratio_policy)
    sized([*lengths, *(size for axis, size in enumerate(x.shape) if axis not in where)])
    region = [] if roi is None else roi.tolist()
    for k, axis in enumerate(where):
        crop = (region[k], region[k + edge]) if len(region) == 2 * edge else (0.0, 1.0)
        if lengths[k] == x.shape[axis] and factors[k] == 1 and crop == (0.0, 1.0):
            continue
        at = _coordinates(
            lengths[k], x.shape[axis], factors[k], coordinate_transformation_mode, crop
        )
        outside = (at < 0) | (at > x.shape[axis] - 1)
        if mode == "nearest":
            x = along(x, axis, _nearest(at, nearest_mode).clamp(0, x.shape[axis] - 1).long())
        else:
            only(mode in REACH, "a mode of resizing")
            width = max(1 / factors[k], 1) if antialias else 1.0
            weights = _weights(at, x.shape[axis], mode, width, cubic_coeff_a, bool(exclude_outside))
            x = (x.movedim(axis, -1) @ weights.T.to(x)).movedim(-1, axis)
        if coordinate_transformation_mode == "tf_crop_and_resize" and outside.any():
            places = outside.view(-1, *(1,) * (x.dim() - axis - 1)).to(x.device)
            x = torch.where(places, extrapolation_value, x)
    return x


def _target(
    x: Tensor, axes: Sequence[int], scales: Tensor | None, sizes: Tensor | None, policy: str
) -> tuple[list[float], list[int]]:
    """Return factor and length of each axis that is resized."""
    old = [x.shape[axis] for axis in axes]
    if scales is not None and scales.numel():
        factors = [float(each) for each in scales.tolist()]
        return factors, [math.floor(a * b) for a, b in zip(old, factors, strict=True)]
    new = ints(sizes) or []
    factors = [a / b for a, b in zip(new, old, strict=True)]
    if policy == "stretch":
        return factors, new
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [factor] * len(old), [math.floor(factor * each + 0.5) for each in old]


def _coordinates(
    length: int, old: int, factor: float, mode: str, crop: tuple[float, float]
) -> Tensor:
    """Return where each output lies among the inputs.

    In float32, as onnxruntime computes it: the nearest of two is a matter of rounding.
    """
    at = torch.arange(length, dtype=torch.float32)
    first, last = crop
    single = length == 1
    half = (at + 0.5) / factor - 0.5
    layouts = {
        "asymmetric": at / factor,
        "align_corners": at * 0 if single else at * ((old - 1) / (length - 1)),
        "half_pixel": half,
        "pytorch_half_pixel": at * 0 if single else half,
        "half_pixel_symmetric": half + old / 2 * (1 - length / (factor * old)),
        "tf_crop_and_resize": at * 0 + 0.5 * (first + last) * (old - 1)
        if single
        else first * (old - 1) + at * ((last - first) * (old - 1) / (length - 1)),
    }
    only(mode in layouts, "a way of laying out a resized grid")
    return layouts[mode]


def _nearest(at: Tensor, mode: str) -> Tensor:
    """Return the nearest input of each output."""
    match mode:
        case "floor":
            return at.floor()
        case "ceil":
            return at.ceil()
        case "round_prefer_ceil":
            return (at + 0.5).floor()
        case _:
            return (at - 0.5).ceil()


def _weights(  # noqa: PLR0917 - the standard's attributes
    at: Tensor, old: int, mode: str, width: float, a: float, inside: bool
) -> Tensor:
    """Return what each input gives to each output, shape ``(outputs, inputs)``.

    Parameters
    ----------
    width
        How much wider than one input the kernel is, against aliasing.
    inside
        Whether inputs beyond the edge count nothing, else as those at the edge.
    """
    reach = math.ceil(REACH[mode] * width)
    taps = at.floor()[:, None] + torch.arange(-reach, reach + 2, dtype=at.dtype)
    distance = (taps - at[:, None]).abs() / width
    weights = (1 - distance).clamp(min=0) if mode == "linear" else _cubic(distance, a)
    if inside:
        weights = weights * ((taps >= 0) & (taps < old))
    weights = weights / weights.sum(1, keepdim=True)
    matrix = torch.zeros(len(at), old, dtype=at.dtype)
    return matrix.scatter_add(1, taps.clamp(0, old - 1).long(), weights)


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Return Keys' kernel (1981) at distances."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0))  # noqa: PLR2004


@operator("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Return channels turned into cells, ``(N, C, H, W)``."""
    rows, channels, height, width = x.shape
    block = blocksize
    inner = channels // block**2
    if mode == "DCR":
        parts = x.reshape(rows, block, block, inner, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(rows, inner, block, block, height, width).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(rows, inner, height * block, width * block)


@operator("SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    """Return cells turned into channels, ``(N, C, H, W)``."""
    rows, channels, height, width = x.shape
    block = blocksize
    parts = x.reshape(rows, channels, height // block, block, width // block, block)
    flat = parts.permute(0, 3, 5, 1, 2, 4)
    return flat.reshape(rows, channels * block**2, height // block, width // block)


@operator("GridSample")
def grid_sample(
    x: Tensor,
    grid: Tensor,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Tensor:
    """Return a tensor at the places of a grid, which are shares of its edges."""
    words = {"linear": "bilinear", "cubic": "bicubic"}
    return functional.grid_sample(x, grid, words.get(mode, mode), padding_mode, bool(align_corners))
