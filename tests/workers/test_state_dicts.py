"""Weights from elsewhere: key maps, replaced heads, and what is said when they do not fit."""

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from service.domain.network import Head, KeyMap
from service.errors.models import ModelUnavailable
from service.manifests import read_manifest
from tests.support.small_model import NETWORK, network, write_package
from workers.architectures.base import ARCHITECTURES
from workers.runtimes.torch_opener import TorchOpener
from workers.state_dicts import fill

OURS = ARCHITECTURES["residual_cnn"].model_validate(NETWORK)
IMAGE = torch.randn(2, 1, 48, 48, generator=torch.Generator().manual_seed(1))


def opened(tmp_path, weights, **changes):
    """Return the network of a package whose weights are these."""
    folder = write_package(tmp_path / "small", changes=changes)
    save_file({name: each.contiguous() for name, each in weights.items()}, folder / "w.safetensors")
    (folder / "w.safetensors").replace(folder / "weights.safetensors")
    manifest = read_manifest((folder / "model.yaml").read_bytes())
    return TorchOpener().open(manifest, folder, (1, 48, 48), torch.device("cpu"))().model


def says_the_same(model, expected):
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGE), expected(IMAGE))


def refused(tmp_path, weights, **changes):
    with pytest.raises(ModelUnavailable) as caught:
        opened(tmp_path, weights, **changes)
    return caught.value


def prefixed(weights, prefix):
    return {prefix + name: each for name, each in weights.items()}


def test_prefixes_are_stripped_one_after_the_other(tmp_path):
    ours = network()
    weights = prefixed(ours.state_dict(), "module.model.")
    says_the_same(opened(tmp_path, weights, key_map={"strip": ["module.", "model."]}), ours)


def test_parts_are_renamed_and_what_is_of_no_use_is_dropped(tmp_path):
    ours = network()
    weights = {
        name.replace("stem.", "entry.conv."): each for name, each in ours.state_dict().items()
    } | {"loss.weight": torch.ones(3)}
    key_map = {"rename": {"entry.conv.": "stem."}, "drop": ["loss."]}
    says_the_same(opened(tmp_path, weights, key_map=key_map), ours)


def test_files_without_counters_of_batch_norm_fit(tmp_path):
    ours = network()
    weights = {k: v for k, v in ours.state_dict().items() if "num_batches" not in k}
    says_the_same(opened(tmp_path, weights), ours)


def test_a_tensor_that_has_two_names_needs_only_one():
    small = {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 2,
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [2, 2, 4],
    }
    ours = ARCHITECTURES["dynunet"].model_validate(small)
    from_monai, again = ours.build(), ours.build()

    weights = ours.layouts["monai"](from_monai.state_dict())
    assert len(weights) < len(from_monai.state_dict())
    fill(again, weights, weights, ours.layouts)
    image = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(again.eval()(image), from_monai.eval()(image))


HEAD = {
    "layers": [
        {"kind": "linear", "features": 5, "key": "head.0"},
        {"kind": "batch_norm", "key": "head.1"},
        {"kind": "relu"},
        {"kind": "linear", "features": 3, "key": "head.4"},
    ]
}


def test_a_replaced_head_is_built_and_filled(tmp_path):
    ours = network()
    ours.head = nn.Sequential(
        nn.Linear(16, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3)
    ).eval()
    weights = prefixed(ours.state_dict(), "net.")
    model = opened(tmp_path, weights, key_map={"strip": ["net."]}, head=HEAD)
    says_the_same(model, ours)


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": []},
        {"layers": [{"kind": "linear", "key": "head"}]},
        {"layers": [{"kind": "linear", "features": 3}]},
        {"layers": [{"kind": "relu", "features": 3}]},
        {"layers": [{"kind": "dropout"}]},
    ],
)
def test_a_head_that_says_too_little_or_too_much_is_refused(wrong):
    with pytest.raises(ValidationError):
        Head.model_validate(wrong)


def test_a_network_without_a_linear_head_cannot_have_another(tmp_path):
    unet = {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 3,
        "channels": [2, 4],
        "strides": [2],
    }
    error = refused(tmp_path, {}, head=HEAD, architecture={"name": "unet", "parameters": unet})
    assert "no linear head" in error.detail
    assert error.facts == {}
    assert error.pointer == "/head"


def test_what_does_not_fit_is_named_with_the_shape_expected(tmp_path):
    weights = network().state_dict()
    weights["head.weight"] = torch.ones(3, 9)
    del weights["head.bias"]
    weights["extra"] = torch.ones(1)
    error = refused(tmp_path, weights)
    assert error.facts == {
        "missing": ["head.bias"],
        "unknown": ["extra"],
        "shapes": ["head.weight: expected [3, 16], found [3, 9]"],
    }


def test_a_forgotten_prefix_is_told(tmp_path):
    error = refused(tmp_path, prefixed(network().state_dict(), "module."))
    assert "without the prefix 'module.'" in error.detail


def test_a_forgotten_layout_is_told(tmp_path):
    parameters = {
        "classes": 3,
        "image": [48, 48],
        "patch": 8,
        "width": 8,
        "depth": 1,
        "heads": 2,
    }
    ours = ARCHITECTURES["vit"].model_validate(parameters).build()
    names = {"embed.": "patch_embed.proj.", "first": "cls_token", "positions": "pos_embed"}
    weights = {
        next(
            (new + name.removeprefix(old) for old, new in names.items() if name.startswith(old)),
            name,
        ): each
        for name, each in ours.state_dict().items()
    }
    error = refused(tmp_path, weights, architecture={"name": "vit", "parameters": parameters})
    assert "layout 'timm'" in error.detail


def test_a_layout_that_is_set_is_not_told_again(tmp_path):
    parameters = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "block_config": [1]}
    ours = ARCHITECTURES["densenet"].model_validate(parameters).build()
    weights = {
        name.replace("layers.", "").replace("class_out", "classifier"): each
        for name, each in ours.state_dict().items()
        if "norm5" not in name
    }
    named = {"name": "densenet", "parameters": parameters}
    told = [
        refused(tmp_path, weights, architecture=named, key_map=key_map).detail
        for key_map in ({}, {"layout": "timm"})
    ]
    assert ["set 'key_map.layout'" in each for each in told] == [True, False]


def test_an_unknown_layout_is_told_with_the_known_ones(tmp_path):
    architecture = {
        "name": "densenet",
        "parameters": {"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "block_config": [1]},
    }
    error = refused(tmp_path, {}, architecture=architecture, key_map={"layout": "keras"})
    assert error.facts["known"] == ["timm", "torchvision"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path, value):
    weights = network().state_dict()
    weights["head.bias"][1] = value
    error = refused(tmp_path, weights)
    assert error.facts == {"tensors": ["head.bias"]}
    assert "no numbers" in error.detail


def test_parameters_that_do_not_go_together_are_told(tmp_path):
    parameters = {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 3,
        "channels": [4, 8, 16],
        "strides": [2],
    }
    error = refused(tmp_path, {}, architecture={"name": "unet", "parameters": parameters})
    assert error.pointer == "/architecture/parameters"


def test_weights_in_half_precision_are_taken(tmp_path):
    ours = network()
    weights = {k: v.half() if v.is_floating_point() else v for k, v in ours.state_dict().items()}
    model = opened(tmp_path, weights)
    assert model.head.weight.dtype == torch.float32
    torch.testing.assert_close(model(IMAGE), ours(IMAGE), atol=0.02, rtol=0.02)


def test_a_key_map_has_no_other_words():
    with pytest.raises(ValidationError):
        KeyMap.model_validate({"regex": ".*"})
