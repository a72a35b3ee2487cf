"""What layers are chosen of each architecture where a package names none."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from workers.architectures.base import ARCHITECTURES
from workers.runtimes.torch import TorchRuntime

TWO = {"channels": 1, "classes": 2}
MONAI = {"spatial_dims": 2, "in_channels": 1}
UP = {**MONAI, "out_channels": 2}
TALL, LOW = (1, 64, 96), (1, 32, 48)
SMALL: Mapping[str, tuple[Mapping[str, Any], tuple[int, ...]]] = {
    "residual_cnn": (
        {**TWO, "stem": 4, "widths": [4, 6], "strides": [1, 2], "dilations": [1, 1]},
        LOW,
    ),
    "attention_mil": ({**TWO, "widths": [4, 6]}, (1, 4, 32, 48)),
    "multi_view_cnn": ({**TWO, "views": 2, "widths": [4, 6]}, (1, 2, 32, 48)),
    "dense_detector": (
        {**TWO, "widths": [4, 6], "strides": [2, 2], "dilations": [1, 1]},
        LOW,
    ),
    "conv_autoencoder": ({"widths": [4, 6]}, LOW),
    "resnet": (
        {
            "block": "basic",
            "layers": [1, 1, 1, 1],
            "block_inplanes": [4, 4, 8, 8],
            "spatial_dims": 2,
            "n_input_channels": 1,
            "num_classes": 2,
        },
        TALL,
    ),
    "densenet": ({**UP, "init_features": 4, "growth_rate": 2, "block_config": [2, 2]}, TALL),
    "efficientnet": ({**MONAI, "model_name": "efficientnet-b0", "num_classes": 2}, TALL),
    "seresnet": ({**MONAI, "num_classes": 2, "layers": [1, 1, 1, 1]}, TALL),
    "convnext": ({**TWO, "widths": [8, 12, 16], "depths": [1, 1, 1]}, TALL),
    "vit": (
        {**TWO, "image": [32, 48], "patch": 8, "width": 24, "depth": 2, "heads": 2},
        LOW,
    ),
    "monai_vit": (
        {
            **MONAI,
            "num_classes": 2,
            "img_size": [32, 48],
            "patch_size": [8, 8],
            "hidden_size": 24,
            "mlp_dim": 32,
            "num_layers": 2,
            "num_heads": 2,
        },
        LOW,
    ),
    "swin": (
        {
            **TWO,
            "image": [32, 48],
            "patch": 4,
            "width": 8,
            "depths": [2, 2],
            "heads": [2, 2],
            "window": 2,
        },
        LOW,
    ),
    "unet": ({**UP, "channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 1}, LOW),
    "dynunet": (
        {
            **UP,
            "kernel_size": [3, 3, 3],
            "strides": [1, 2, 2],
            "upsample_kernel_size": [2, 2],
            "filters": [4, 8, 16],
        },
        LOW,
    ),
    "plain_conv_unet": (
        {
            "input_channels": 1,
            "num_classes": 2,
            "features_per_stage": [4, 8],
            "kernel_sizes": [[3, 3], [3, 3]],
            "strides": [[1, 1], [2, 2]],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
        },
        LOW,
    ),
    "segresnet": ({**UP, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]}, LOW),
    "swin_unetr": (
        {**UP, "feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]},
        TALL,
    ),
}


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_layer_that_is_chosen_has_square_cells_over_the_whole_image(name: str) -> None:
    """Channels that come last, tokens and borders of padding have others.

    Of slices and views, which each network here keeps apart, a cell is one.
    """
    parameters, image = SMALL[name]
    architecture = ARCHITECTURES[name].model_validate(parameters)
    torch.manual_seed(0)
    runtime = TorchRuntime(architecture.build(), image, None, tokens=architecture.tokens())
    assert runtime.probed.layers
    assert not runtime.probed.refused
    for layer in runtime.probed.layers:
        (step,) = set(layer.stride[-2:])
        assert step in (1, 2, 4, 8, 16, 32), layer
        assert set(layer.stride[:-2]) <= {1}
