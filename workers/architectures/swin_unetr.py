"""MONAI's Swin-UNETR, 2-D and 3-D."""

from typing import Literal

from pydantic import Field
from torch import nn
from typing_extensions import override

from workers.architectures.base import ARCHITECTURES, Architecture
from workers.architectures.monai import Count, Edges, Part, Share, of_monai

NETWORK = of_monai("swin_unetr", "SwinUNETR", "einops")


@ARCHITECTURES.register("swin_unetr")
class SwinUNETR(Architecture):
    """A transformer of shifted windows on the way down, convolutions on the way up.

    Parameters
    ----------
    in_channels, out_channels, spatial_dims
        Channels of the image, channels of the logits, spatial axes.
    feature_size
        Channels of the first scale, a multiple of 12.
    patch_size, depths, num_heads, window_size, qkv_bias, mlp_ratio
        Of the transformer; sides of the image are multiples of the fifth power of
        `patch_size`.
    norm_name, normalize, patch_norm, downsample, use_v2
        As MONAI has them.
    drop_rate, attn_drop_rate, dropout_path_rate
        Of training; without effect here.

    References
    ----------
    A. Hatamizadeh et al., "Swin UNETR: Swin transformers for semantic segmentation
    of brain tumors in MRI images", BrainLes 2021. arXiv:2201.01266.
    """

    in_channels: Count
    out_channels: Count
    patch_size: Count = 2
    depths: tuple[Count, Count, Count, Count] = (2, 2, 2, 2)
    num_heads: tuple[Count, Count, Count, Count] = (3, 6, 12, 24)
    window_size: Edges = 7
    qkv_bias: bool = True
    mlp_ratio: float = Field(default=4.0, gt=0, le=16)
    feature_size: Count = 24
    norm_name: Part = "instance"
    drop_rate: Share = 0.0
    attn_drop_rate: Share = 0.0
    dropout_path_rate: Share = 0.0
    normalize: bool = True
    patch_norm: bool = False
    spatial_dims: Literal[2, 3] = 3
    downsample: Literal["merging", "mergingv2"] = "merging"
    use_v2: bool = False

    @override
    def build(self) -> nn.Module:
        """Return the network with fresh weights, in training mode."""
        return NETWORK(**dict(self))
