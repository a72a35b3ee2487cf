"""A transformer of shifted windows, for images and volumes of one fixed size."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Annotated, Final

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture
from workers.state_dicts import Renamed, Weights, flat
from workers.tokens import Tokens

Size = Annotated[int, Field(ge=1, le=4096)]
Few = Annotated[int, Field(ge=1, le=64)]
Grid = tuple[int, ...]
STAGES: Final = 5
"""At most."""


def _merged(tensor: Tensor) -> Tensor:
    """Reorder what is merged: published networks take 2 x 2 tokens column by column."""
    merged: Tensor = tensor.unflatten(-1, (2, 2, -1)).transpose(-3, -2).flatten(-3)
    return merged


SHAPED: Final = {
    r"embed\.lift\.weight": flat,
    r"stages\.\d+\.merge\.(norm\.\w+|lift\.weight)": _merged,
}
BLOCK: Final = {
    r"(stages\.\d+\.blocks\.\d+)\.attn\.relative_position_bias_table": r"\1.attention.biases",
    r"(stages\.\d+\.blocks\.\d+)\.attn\.qkv\.(\w+)": r"\1.attention.queries_keys_values.\2",
    r"(stages\.\d+\.blocks\.\d+)\.attn\.proj\.(\w+)": r"\1.attention.mixed.\2",
    r"(stages\.\d+\.blocks\.\d+)\.mlp\.(?:0|fc1)\.(\w+)": r"\1.perceptron.0.\2",
    r"(stages\.\d+\.blocks\.\d+)\.mlp\.(?:3|fc2)\.(\w+)": r"\1.perceptron.2.\2",
}
INNER: Final = Renamed(BLOCK, without=r".*\.(relative_position_index|attn_mask)", shaped=SHAPED)
TIMM: Final = Renamed(
    {
        r"patch_embed\.proj\.(\w+)": r"embed.lift.\1",
        r"patch_embed\.norm\.(\w+)": r"embed.norm.\1",
        r"layers\.(\d+)\.downsample\.reduction\.(\w+)": r"stages.\1.merge.lift.\2",
        r"layers\.(\d+)\.downsample\.norm\.(\w+)": r"stages.\1.merge.norm.\2",
        r"layers\.(\d+\.blocks\..+)": r"stages.\1",
        r"head\.fc\.(\w+)": r"head.\1",
    }
)


def _timm(weights: Weights) -> Weights:
    return INNER(TIMM(weights))


def _torchvision(weights: Weights) -> Weights:
    """Return weights of torchvision's layout: stages and mergings take turns in ``features``."""
    stages = {
        rf"features\.{2 * k + 1}\.(\d+)\.(.+)": rf"stages.{k}.blocks.\1.\2" for k in range(STAGES)
    }
    merges = {
        rf"features\.{2 * k}\.{part}\.(\w+)": rf"stages.{k}.merge.{own}.\1"
        for k in range(1, STAGES)
        for part, own in (("reduction", "lift"), ("norm", "norm"))
    }
    embed = {r"features\.0\.0\.(\w+)": r"embed.lift.\1", r"features\.0\.2\.(\w+)": r"embed.norm.\1"}
    return INNER(Renamed(embed | stages | merges)(weights))


@ARCHITECTURES.register("swin")
class Swin(Architecture):
    r"""Attention within windows, which every second block displaces by half a window.

    Patches are tokens that keep their places, ``(rows, *grid, width)``. Between
    two stages each 2 x 2 (in volumes 2 x 2 x 2) tokens are merged into one of
    twice the width. Attention adds a learned number for each difference of
    places. Displaced windows are cut at the image's edges. The score is read
    off the mean of the last stage's tokens, after a norm, by a linear head.

    Parameters
    ----------
    channels
        Channels of the image.
    classes
        Number of logits.
    image
        Size along each spatial axis, one to three; multiples of `patch` times 2
        to the power of the stages but one.
    patch
        Edge of a patch.
    width
        Numbers of a token in the first stage.
    depths
        Blocks of each stage.
    heads
        Heads of each attention, by stage; the stage's width is a multiple.
    window
        Edge of a window, or the whole of a grid that is smaller; every grid is
        a multiple of it.
    hidden
        Hidden units of the perceptron, as a multiple of the stage's width.

    References
    ----------
    Z. Liu et al., "Swin transformer: hierarchical vision transformer using
    shifted windows", ICCV 2021. arXiv:2103.14030.
    """

    head = "head"
    layouts = {"torchvision": _torchvision, "timm": _timm}

    channels: Size = 1
    classes: Size
    image: tuple[Size, ...] = Field(min_length=1, max_length=3)
    patch: Size
    width: Size
    depths: tuple[Few, ...] = Field(min_length=1, max_length=STAGES)
    heads: tuple[Few, ...] = Field(min_length=1, max_length=STAGES)
    window: Few
    hidden: int = Field(default=4, ge=1, le=8)

    @model_validator(mode="after")
    def _whole_parts(self) -> "Swin":
        if len(self.heads) != len(self.depths):
            raise ValueError("heads and depths must have one entry for each stage")
        smallest = self.patch * 2 ** (len(self.depths) - 1)
        if any(size % smallest for size in self.image):
            raise ValueError("every size of the image must be a multiple of its largest patches")
        for (*grid, width), heads in zip(self.stages, self.heads, strict=True):
            if width % heads:
                raise ValueError("the width of each stage must be a multiple of its heads")
            if any(size % min(size, self.window) for size in grid):
                raise ValueError("every grid must be a multiple of the window")
        return self

    @property
    def stages(self) -> tuple[tuple[int, ...], ...]:
        """Grid and width of each stage's tokens, ``(*grid, width)``."""
        edges = [self.patch * 2**stage for stage in range(len(self.depths))]
        return tuple(
            (*(size // edge for size in self.image), self.width * edge // self.patch)
            for edge in edges
        )

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return _Network(self)

    @override
    def tokens(self) -> Tokens:
        """Return where the tokens lie: on the grid of each stage, windows or not."""
        *grid, width = self.stages[-1]
        return Tokens(
            prefix=0, grid=tuple(grid), width=width, reads_class=False, stages=self.stages
        )


class _Network(nn.Module):
    """``embed``, ``stages.0`` … ``stages.n``, ``norm``, mean over the grid, ``head``."""

    def __init__(self, shape: Swin) -> None:
        super().__init__()
        axes, width = len(shape.image), shape.stages[-1][-1]
        self.embed = _Embedding(shape.channels, shape.width, (shape.patch,) * axes)
        self.stages = nn.Sequential(*(_Stage(shape, stage) for stage in range(len(shape.depths))))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, shape.classes)

    @override
    def forward(self, image: Tensor) -> Tensor:
        tokens = self.norm(self.stages(self.embed(image)))
        logits: Tensor = self.head(tokens.flatten(1, -2).mean(1))
        return logits


class _Embedding(nn.Module):
    """Patches to tokens; the same as a convolution in steps of its own size."""

    def __init__(self, channels: int, width: int, patch: Grid) -> None:
        super().__init__()
        self.patch = patch
        self.lift = nn.Linear(channels * math.prod(patch), width)
        self.norm = nn.LayerNorm(width)

    @override
    def forward(self, image: Tensor) -> Tensor:
        axes = len(self.patch)
        last = image.permute(0, *range(2, axes + 2), 1)
        boxes, edges = range(axes + 1), range(axes + 1, 2 * axes + 1)
        patches = cut(last, self.patch).permute(*boxes, 2 * axes + 1, *edges)
        tokens: Tensor = self.norm(self.lift(patches.flatten(axes + 1)))
        return tokens


class _Stage(nn.Module):
    """Tokens of the stage before are merged; then blocks on one grid."""

    def __init__(self, shape: Swin, stage: int) -> None:
        super().__init__()
        *grid, width = shape.stages[stage]
        self.merge: nn.Module = _Merging(width // 2, len(grid)) if stage else nn.Identity()
        heads, hidden = shape.heads[stage], shape.hidden * width
        self.blocks = nn.Sequential(
            *(
                _Block(width, hidden, _Attention(grid, width, heads, shape.window, odd=block % 2))
                for block in range(shape.depths[stage])
            )
        )

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        lifted: Tensor = self.blocks(self.merge(tokens))
        return lifted


class _Merging(nn.Module):
    """Two tokens along each axis become one of twice their width."""

    def __init__(self, width: int, axes: int) -> None:
        super().__init__()
        self.edges = (2,) * axes
        self.norm = nn.LayerNorm(width * 2**axes)
        self.lift = nn.Linear(width * 2**axes, 2 * width, bias=False)

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        merged: Tensor = self.lift(self.norm(cut(tokens, self.edges).flatten(len(self.edges) + 1)))
        return merged


class _Block(nn.Module):
    """Attention and perceptron, each of the norm, each beside a shortcut."""

    def __init__(self, width: int, hidden: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        lifted: Tensor = tokens + self.perceptron(self.norm2(tokens))
        return lifted


class _Attention(nn.Module):
    """Attention of the tokens of a window to one another, in several heads."""

    near: Tensor
    """For each pair of tokens of a window, the row of `biases` for their difference of places."""

    apart: Tensor
    """Whether tokens meet in a displaced window only across an edge, ``(windows, 1, n, n)``."""

    def __init__(self, grid: Sequence[int], width: int, heads: int, window: int, odd: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = tuple(min(size, window) for size in grid)
        whole = [size == edge for size, edge in zip(grid, self.window, strict=True)]
        self.shift = tuple(
            0 if full else odd * (edge // 2) for full, edge in zip(whole, self.window, strict=True)
        )
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.biases = nn.Parameter(torch.zeros(_differences(self.window), heads))
        self.register_buffer("near", _near(self.window), persistent=False)
        apart = _apart(tuple(grid), self.window, self.shift)
        self.register_buffer("apart", apart, persistent=False)

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        axes = tuple(range(1, tokens.dim() - 1))
        moved = tokens.roll([-step for step in self.shift], axes)
        windows = cut(moved, self.window)
        seen = self._within(windows.flatten(len(axes) + 1, -2).flatten(1, len(axes)))
        return joined(seen.reshape(windows.shape)).roll(self.shift, axes)

    def _within(self, windows: Tensor) -> Tensor:
        """Return what attention makes of tokens ``(rows, windows, n, width)``."""
        parts = self.queries_keys_values(windows).reshape(*windows.shape[:3], 3, self.heads, -1)
        queries, keys, values = parts.permute(3, 0, 1, 4, 2, 5)
        bias = self.biases[self.near].permute(2, 0, 1).masked_fill(self.apart, -torch.inf)
        seen = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        mixed: Tensor = self.mixed(seen.transpose(2, 3).flatten(3))
        return mixed


def cut(tokens: Tensor, edges: Grid) -> Tensor:
    """Return tokens ``(rows, *grid, width)`` in boxes, ``(rows, *boxes, *edges, width)``."""
    axes = len(edges)
    shape = [tokens.shape[0]]  # and not its length, which exporters take for a constant
    for size, edge in zip(tokens.shape[1:-1], edges, strict=True):
        shape += [size // edge, edge]
    places, offsets = range(1, 2 * axes, 2), range(2, 2 * axes + 1, 2)
    return tokens.reshape(*shape, tokens.shape[-1]).permute(0, *places, *offsets, 2 * axes + 1)


def joined(boxes: Tensor) -> Tensor:
    """Return what `cut` was given."""
    axes = (boxes.dim() - 2) // 2
    pairs = [axis for k in range(1, axes + 1) for axis in (k, k + axes)]
    sizes = [boxes.shape[k] * boxes.shape[k + axes] for k in range(1, axes + 1)]
    return boxes.permute(0, *pairs, 2 * axes + 1).reshape(boxes.shape[0], *sizes, boxes.shape[-1])


def _differences(window: Grid) -> int:
    """Return how many differences there are between two places of a window."""
    return math.prod(2 * edge - 1 for edge in window)


def _near(window: Grid) -> Tensor:
    """Return the number of each pair's difference of places, shape ``(n, n)``."""
    places = torch.tensor(list(product(*map(range, window))))
    edges = torch.tensor(window)
    number = torch.zeros(len(places), len(places), dtype=torch.long)
    for axis, steps in enumerate((places[:, None] - places[None] + edges - 1).unbind(2)):
        number = number * (2 * window[axis] - 1) + steps
    return number


def _apart(grid: Grid, window: Grid, shift: Grid) -> Tensor:
    """Return which pairs of a displaced window lie on both sides of an edge of the image."""
    wrapped = torch.zeros(1, *grid, len(grid))
    for axis, (size, step) in enumerate(zip(grid, shift, strict=True)):
        wrapped.select(-1, axis).narrow(axis + 1, size - step, step).fill_(1)
    sides = cut(wrapped, window).flatten(len(grid) + 1, -2).flatten(0, len(grid))
    return (sides[:, :, None] != sides[:, None]).any(-1)[:, None]
