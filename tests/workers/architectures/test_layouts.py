"""Weights of published networks fill ours, and ours then say the same.

Names, shapes and logits were recorded from torchvision, timm and nnU-Net by
``tests/support/layouts/record.py``.
"""

import json
from pathlib import Path

import pytest
import torch

from service.domain.network import KeyMap
from service.errors.models import ModelUnavailable
from tests.support.layouts.drawn import drawn, image
from workers.architectures.base import ARCHITECTURES
from workers.state_dicts import Renamed, fill

RECORDED = Path(__file__).parents[2] / "support" / "layouts"
PUBLISHED = json.loads((RECORDED / "published.json").read_text())
SMALL = json.loads((RECORDED / "small.json").read_text())

RESNET = {
    "spatial_dims": 2,
    "n_input_channels": 3,
    "conv1_t_stride": 2,
    "bias_downsample": False,
}
RESNET18 = {**RESNET, "block": "basic", "layers": [2, 2, 2, 2], "num_classes": 1000}
RESNET50 = {**RESNET, "block": "bottleneck", "layers": [3, 4, 6, 3], "num_classes": 1000}
DENSENET = {"spatial_dims": 2, "in_channels": 3, "out_channels": 1000}
EVEN = {"model_name": "efficientnet-b0", "padding": "symmetric", "epsilon": 1e-5}
VIT = {
    "channels": 3,
    "classes": 1000,
    "image": [224, 224],
    "patch": 16,
    "width": 768,
    "depth": 12,
    "heads": 12,
    "epsilon": 1e-6,
}
SWIN = {
    "channels": 3,
    "classes": 1000,
    "image": [224, 224],
    "patch": 4,
    "width": 96,
    "depths": [2, 2, 6, 2],
    "heads": [3, 6, 12, 24],
    "window": 7,
}
CONVNEXT = {"channels": 3, "classes": 1000}
FULL = {
    "torchvision/resnet18": ("resnet", RESNET18),
    "torchvision/resnet50": ("resnet", RESNET50),
    "torchvision/densenet121": ("densenet", DENSENET),
    "torchvision/efficientnet_b0": ("efficientnet", EVEN),
    "torchvision/vit_b_16": ("vit", VIT),
    "torchvision/swin_t": ("swin", SWIN),
    "torchvision/convnext_tiny": ("convnext", CONVNEXT),
    "timm/resnet18": ("resnet", RESNET18),
    "timm/resnet50": ("resnet", RESNET50),
    "timm/densenet121": ("densenet", DENSENET),
    "timm/efficientnet_b0": ("efficientnet", EVEN),
    "timm/tf_efficientnet_b0": ("efficientnet", {"model_name": "efficientnet-b0"}),
    "timm/vit_base_patch16_224": ("vit", VIT),
    "timm/swin_tiny_patch4_window7_224": ("swin", SWIN),
    "timm/convnext_tiny": ("convnext", CONVNEXT),
    "timm/legacy_seresnet50": (
        "seresnet",
        {"spatial_dims": 2, "in_channels": 3, "num_classes": 1000},
    ),
}
FEW_BASIC = {**RESNET, "block": "basic", "layers": [1, 1, 2, 1], "num_classes": 3}
FEW_SWIN = {
    "channels": 3,
    "classes": 3,
    "image": [64, 64],
    "patch": 4,
    "width": 8,
    "depths": [2, 2],
    "heads": [2, 2],
    "window": 4,
}
FEW_DENSE = {
    **DENSENET,
    "out_channels": 3,
    "growth_rate": 4,
    "block_config": [2, 3],
    "init_features": 8,
}
FEW_VIT = {**VIT, "classes": 3, "image": [32, 32], "patch": 8, "width": 16, "depth": 2, "heads": 2}
UNET = {"input_channels": 1, "num_classes": 3}
FEW = {
    "torchvision/resnet-basic": ("resnet", FEW_BASIC),
    "torchvision/resnet-bottleneck": (
        "resnet",
        {**FEW_BASIC, "block": "bottleneck", "layers": [1, 2, 1, 1]},
    ),
    "torchvision/densenet": ("densenet", FEW_DENSE),
    "torchvision/efficientnet": ("efficientnet", {**EVEN, "num_classes": 3}),
    "torchvision/vit": ("vit", FEW_VIT),
    "torchvision/swin": ("swin", FEW_SWIN),
    "torchvision/convnext": (
        "convnext",
        {"channels": 3, "classes": 3, "widths": [8, 16], "depths": [2, 1]},
    ),
    "timm/resnet-basic": ("resnet", FEW_BASIC),
    "timm/densenet": ("densenet", FEW_DENSE),
    "timm/efficientnet": ("efficientnet", {**EVEN, "num_classes": 3}),
    "timm/tf_efficientnet": (
        "efficientnet",
        {"model_name": "efficientnet-b0", "num_classes": 3},
    ),
    "timm/vit": ("vit", FEW_VIT),
    "timm/swin": ("swin", FEW_SWIN),
    "timm/convnext": (
        "convnext",
        {"channels": 3, "classes": 3, "widths": [8, 12, 16, 24], "depths": [1, 1, 2, 1]},
    ),
    "timm/seresnet": ("seresnet", {"spatial_dims": 2, "in_channels": 3, "num_classes": 3}),
    "nnunet/2d": (
        "plain_conv_unet",
        {
            **UNET,
            "features_per_stage": [4, 6, 8, 10],
            "kernel_sizes": [[1, 3], [3, 3], [3, 3], [3, 3]],
            "strides": [[1, 1], [2, 2], [2, 2], [2, 1]],
            "n_conv_per_stage": [2, 2, 2, 2],
            "n_conv_per_stage_decoder": [2, 2, 2],
        },
    ),
    "nnunet/3d": (
        "plain_conv_unet",
        {
            **UNET,
            "features_per_stage": [4, 6, 8],
            "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
            "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
            "n_conv_per_stage": [2, 2, 2],
            "n_conv_per_stage_decoder": [2, 2],
        },
    ),
}


def architecture(name, parameters):
    return ARCHITECTURES[name].model_validate(parameters)


def test_every_recorded_network_is_tried():
    assert set(PUBLISHED) == set(FULL)
    assert set(SMALL) == set(FEW)


@pytest.mark.parametrize("key", FULL)
def test_a_published_state_dict_fits_by_name_and_shape(key):
    ours = architecture(*FULL[key])
    with torch.device("meta"):
        own = {name: list(each.shape) for name, each in ours.build().state_dict().items()}
        theirs = {name: torch.zeros(shape) for name, shape in PUBLISHED[key].items()}
    given = ours.layouts[key.split("/")[0]](theirs)
    assert {name: list(each.shape) for name, each in given.items()} == own


def filled(key):
    """Return our network with the weights that the recorded one had."""
    entry, ours = SMALL[key], architecture(*FEW[key])
    weights = drawn({n: s for n, s in entry["tensors"].items() if n not in entry["aliases"]})
    weights |= {name: weights[known] for name, known in entry["aliases"].items()}
    network = ours.build().double().eval()
    fill(network, ours.layouts[key.split("/")[0]](weights), weights, ours.layouts)
    return network


@pytest.mark.parametrize("key", FEW)
def test_with_published_weights_a_network_says_what_the_published_one_says(key):
    entry = SMALL[key]
    with torch.no_grad():
        logits = filled(key)(image(entry["image"])).flatten()
    some = logits[:: max(1, len(logits) // 24)]
    expected = torch.tensor(entry["logits"], dtype=torch.float64)
    assert expected.std() > 1e-3
    torch.testing.assert_close(some, expected, rtol=1e-6, atol=1e-7)


def test_old_files_of_torchvision_fit_too():
    """Before 0.4 a DenseNet's layers were named norm.1, before 0.14 a ViT's mlp.linear_1."""
    dense = ARCHITECTURES["densenet"].layouts["torchvision"]
    old = {"features.denseblock1.denselayer2.norm.1.weight": torch.ones(4)}
    assert list(dense(old)) == ["features.denseblock1.denselayer2.layers.norm1.weight"]
    vit = ARCHITECTURES["vit"].layouts["torchvision"]
    old = {"encoder.layers.encoder_layer_0.mlp.linear_2.bias": torch.ones(4)}
    assert list(vit(old)) == ["blocks.0.perceptron.2.bias"]


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(ModelUnavailable, match="one name"):
        Renamed({r"[ab]": "c"})({"a": torch.ones(1), "b": torch.ones(1)})


def test_a_key_map_is_a_value_of_the_manifest():
    assert KeyMap.model_validate({"strip": ["module."], "layout": "timm"}).layout == "timm"
