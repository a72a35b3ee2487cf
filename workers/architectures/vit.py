"""A vision transformer, for images and volumes of one fixed size."""

import math
from typing import Annotated, Final

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture
from workers.state_dicts import Renamed
from workers.tokens import Tokens

Size = Annotated[int, Field(ge=1, le=4096)]
Width = Annotated[int, Field(ge=1, le=4096)]
CONVOLUTIONS: Final = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""By number of spatial axes."""

SPREAD: Final = 0.02
"""Standard deviation of the first position and class embeddings."""

SHAPED: Final = {"first|positions": lambda tensor: tensor.squeeze(0)}
TORCHVISION: Final = Renamed(
    {
        r"class_token": "first",
        r"encoder\.pos_embedding": "positions",
        r"conv_proj\.(\w+)": r"embed.\1",
        r"encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.(\w+)": r"blocks.\1.norm\2.\3",
        r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(\w+)": (
            r"blocks.\1.attention.queries_keys_values.\2"
        ),
        r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.(\w+)": (
            r"blocks.\1.attention.mixed.\2"
        ),
        # files of before torchvision 0.14 write mlp.linear_1 for mlp.0
        r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.(\w+)": (
            r"blocks.\1.perceptron.0.\2"
        ),
        r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.(\w+)": (
            r"blocks.\1.perceptron.2.\2"
        ),
        r"encoder\.ln\.(\w+)": r"norm.\1",
        r"heads\.head\.(\w+)": r"head.\1",
    },
    shaped=SHAPED,
)
TIMM: Final = Renamed(
    {
        r"cls_token": "first",
        r"pos_embed": "positions",
        r"patch_embed\.proj\.(\w+)": r"embed.\1",
        r"blocks\.(\d+)\.attn\.qkv\.(\w+)": r"blocks.\1.attention.queries_keys_values.\2",
        r"blocks\.(\d+)\.attn\.proj\.(\w+)": r"blocks.\1.attention.mixed.\2",
        r"blocks\.(\d+)\.mlp\.fc1\.(\w+)": r"blocks.\1.perceptron.0.\2",
        r"blocks\.(\d+)\.mlp\.fc2\.(\w+)": r"blocks.\1.perceptron.2.\2",
    },
    shaped=SHAPED,
)


@ARCHITECTURES.register("vit")
class Vit(Architecture):
    r"""Patches as tokens, blocks of attention and perceptron, a linear head.

    Each block adds to the tokens what attention, and then a perceptron of one
    hidden layer, make of their norms. The score is read off a class token or
    off the mean of all patches, after a last norm. Attention is torch's fused
    one; its weights can still be had by the methods that ask for them.

    Parameters
    ----------
    channels
        Channels of the image.
    classes
        Number of logits.
    image
        Size along each spatial axis, one to three; multiples of `patch`.
    patch
        Edge of a patch.
    width
        Numbers of a token, a multiple of `heads`.
    depth
        Blocks.
    heads
        Heads of each attention.
    hidden
        Hidden units of the perceptron, as a multiple of `width`.
    class_token
        Whether the score is read off a class token, else off the mean.
    epsilon
        Added to the variance in each norm; torchvision and timm have ``1.0e-6``.

    References
    ----------
    A. Dosovitskiy et al., "An image is worth 16x16 words: transformers for
    image recognition at scale", ICLR 2021. arXiv:2010.11929.
    """

    head = "head"
    layouts = {"torchvision": TORCHVISION, "timm": TIMM}

    channels: Width = 1
    classes: Width
    image: tuple[Size, ...] = Field(min_length=1, max_length=3)
    patch: Size
    width: Width
    depth: int = Field(ge=1, le=64)
    heads: int = Field(ge=1, le=64)
    hidden: int = Field(default=4, ge=1, le=8)
    class_token: bool = True
    epsilon: float = Field(default=1e-5, gt=0, lt=1)

    @model_validator(mode="after")
    def _whole_parts(self) -> "Vit":
        if any(size % self.patch for size in self.image):
            raise ValueError("every size of the image must be a multiple of patch")
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return _Network(self)

    @override
    def tokens(self) -> Tokens:
        """Return where the tokens lie: one to a patch, after the class token."""
        return Tokens(
            prefix=int(self.class_token),
            grid=tuple(size // self.patch for size in self.image),
            width=self.width,
            reads_class=self.class_token,
        )


class _Network(nn.Module):
    """``embed``, ``blocks.0`` … ``blocks.n``, ``norm``, class token or mean, ``head``."""

    def __init__(self, shape: Vit) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[len(shape.image)]
        self.embed = convolution(shape.channels, shape.width, shape.patch, stride=shape.patch)
        patches = math.prod(size // shape.patch for size in shape.image)
        prefix = int(shape.class_token)
        self.first = nn.Parameter(torch.randn(prefix, shape.width) * SPREAD)
        self.positions = nn.Parameter(torch.randn(prefix + patches, shape.width) * SPREAD)
        self.blocks = nn.Sequential(*(_Block(shape) for _ in range(shape.depth)))
        self.norm = nn.LayerNorm(shape.width, shape.epsilon)
        self.head = nn.Linear(shape.width, shape.classes)

    @override
    def forward(self, image: Tensor) -> Tensor:
        patches = self.embed(image).flatten(2).transpose(1, 2)
        # not `len`, which is a number to the exporters: it would fix the batch in their files
        first = self.first.expand(image.shape[0], -1, -1)
        tokens = self.norm(self.blocks(torch.cat([first, patches], 1) + self.positions))
        logits: Tensor = self.head(tokens[:, 0] if len(self.first) else tokens.mean(1))
        return logits


class _Block(nn.Module):
    """Attention and perceptron, each of the norm, each beside a shortcut."""

    def __init__(self, shape: Vit) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.width, shape.epsilon)
        self.attention = _Attention(shape.width, shape.heads)
        self.norm2 = nn.LayerNorm(shape.width, shape.epsilon)
        self.perceptron = nn.Sequential(
            nn.Linear(shape.width, shape.hidden * shape.width),
            nn.GELU(),
            nn.Linear(shape.hidden * shape.width, shape.width),
        )

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        lifted: Tensor = tokens + self.perceptron(self.norm2(tokens))
        return lifted


class _Attention(nn.Module):
    """Attention of all tokens to all, in several heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.queries_keys_values(tokens).unflatten(2, (3, self.heads, -1))
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(queries, keys, values)
        mixed: Tensor = self.mixed(seen.transpose(1, 2).flatten(2))
        return mixed
