"""MONAI's vision transformer as a classifier, 1-D to 3-D."""

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture
from workers.architectures.monai import Axes, Count, of_monai
from workers.tokens import Tokens

NETWORK = of_monai("vit", "ViT", "einops")


@ARCHITECTURES.register("monai_vit")
class MonaiVit(Architecture):
    """A vision transformer with MONAI's names; `vit` takes torchvision's and timm's weights.

    Parameters
    ----------
    in_channels, num_classes
        Channels of the image, number of logits.
    img_size, patch_size
        Edges along each spatial axis.
    hidden_size, mlp_dim, num_layers, num_heads
        Numbers of a token, hidden units, blocks, heads.
    spatial_dims
        Spatial axes; one entry of `img_size` and `patch_size` for each.
    proj_type, pos_embed_type, qkv_bias
        As MONAI has them.
    post_activation
        ``Tanh`` as MONAI's default is, or ``none``: what is done to the logits.
    dropout_rate
        Of training; without effect here.

    References
    ----------
    A. Dosovitskiy et al., "An image is worth 16x16 words: transformers for
    image recognition at scale", ICLR 2021. arXiv:2010.11929.
    """

    head = "classification_head"

    in_channels: Count
    num_classes: Count = 2
    img_size: tuple[Count, ...] = Field(min_length=1, max_length=3)
    patch_size: tuple[Count, ...] = Field(min_length=1, max_length=3)
    hidden_size: Count = 768
    mlp_dim: Count = 3072
    num_layers: Count = 12
    num_heads: Count = 12
    proj_type: Literal["conv", "perceptron"] = "conv"
    pos_embed_type: Literal["learnable", "sincos", "none"] = "learnable"
    spatial_dims: Axes = 3
    post_activation: Literal["Tanh", "none"] = "Tanh"
    qkv_bias: bool = False
    dropout_rate: float = Field(default=0.0, ge=0, le=1)

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        network = NETWORK(**dict(self), classification=True)
        network.register_forward_hook(_logits)
        return network

    @override
    def tokens(self) -> Tokens:
        """Return where the tokens lie: one to a patch, after the class token."""
        edges = zip(self.img_size, self.patch_size, strict=True)
        return Tokens(
            prefix=1,
            grid=tuple(size // patch for size, patch in edges),
            width=self.hidden_size,
            reads_class=True,
        )


def _logits(_module: nn.Module, _args: Any, output: tuple[Tensor, Any]) -> Tensor:
    """Return the first of what the network puts out; the second are its tokens of each block."""
    return output[0]
