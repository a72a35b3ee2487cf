"""MONAI's networks as a bundle names them, held against MONAI's own."""

import inspect
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn

from service.drafts.monai import NETWORKS, choice
from tests.support.foreign import write_bundle
from workers.architectures.base import ARCHITECTURES

NETS = "monai.networks.nets"
SMALL = {
    "EfficientNetBN": {
        "model_name": "efficientnet-b0",
        "spatial_dims": 2,
        "in_channels": 1,
        "num_classes": 4,
        "pretrained": False,
    },
    "ViT": {
        "in_channels": 1,
        "img_size": 32,
        "patch_size": [16, 16],
        "hidden_size": 24,
        "mlp_dim": 16,
        "num_layers": 1,
        "num_heads": 2,
        "spatial_dims": 2,
        "classification": True,
        "num_classes": 3,
    },
    "SENet": {
        "spatial_dims": 2,
        "in_channels": 1,
        "block": "se_resnet_bottleneck",
        "layers": [1, 1, 1, 1],
        "groups": 1,
        "reduction": 16,
        "num_classes": 3,
    },
}


@pytest.mark.parametrize("kind", SMALL)
def test_what_is_drafted_answers_as_monais_own(imported, tmp_path, kind):
    fields, said = imported(write_bundle(tmp_path / "bundle", {"_target_": kind, **SMALL[kind]}))
    assert "/architecture" not in said
    network = fields["architecture"]
    ours = ARCHITECTURES[network["name"]].model_validate(network["parameters"]).build().eval()
    torch.manual_seed(0)
    theirs = getattr(import_module(NETS), kind)(**SMALL[kind]).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        answer = theirs(image)
        expected = answer[0] if isinstance(answer, tuple) else answer
        torch.testing.assert_close(ours(image), expected)


KINDS = ("ResNet", "DenseNet", "DenseNet121", "EfficientNetBN", "SENet", "UNet", "DynUNet")


@pytest.mark.parametrize("kind", [*KINDS, "SegResNet", "ViT", "SwinUNETR"])
def test_what_a_bundle_leaves_out_is_as_monai_has_it(kind):
    """A default of MONAI's that is another here is told in the draft."""
    known = NETWORKS[kind.lower()]
    fields = ARCHITECTURES[known.name].model_fields
    for name, each in inspect.signature(getattr(import_module(NETS), kind)).parameters.items():
        if each.default is not inspect.Parameter.empty and name in fields:
            ours = known.defaults.get(name, fields[name].default)
            assert (name, ours) == (name, each.default)
        elif name in known.fixed:
            value = known.defaults.get(name, known.fixed[name][0])
            theirs = [*each.default] if isinstance(each.default, tuple) else each.default
            assert value == theirs or theirs in known.fixed[name]


@pytest.mark.parametrize("kind", ["SEResNet50", "SEResNeXt101", "SENet154", "DenseNet169"])
def test_a_class_that_fixes_its_blocks_becomes_the_network_with_those_blocks(kind):
    _demand_same_network(kind, {"spatial_dims": 2, "in_channels": 1, "num_classes": 3})


@pytest.mark.parametrize("kind", ["resnet18", "resnet50"])
def test_a_function_that_builds_a_network_becomes_the_network_that_it_builds(kind):
    _demand_same_network(kind, {"spatial_dims": 2, "n_input_channels": 1, "num_classes": 3})


def _demand_same_network(kind: str, given: dict[str, Any]) -> None:
    """Hold names and shapes of all weights against those of MONAI's own; none has values."""
    if kind.startswith("DenseNet"):
        given["out_channels"] = given.pop("num_classes")
    found = choice({"_target_": f"{NETS}.{kind}", **given})
    assert isinstance(found, dict)
    with torch.device("meta"):
        ours = ARCHITECTURES[found["name"]].model_validate(found["parameters"]).build()
        theirs = getattr(import_module(NETS), kind)(**given)
    assert _shapes(ours) == _shapes(theirs)


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: each.shape for name, each in network.state_dict().items()}


def test_a_size_that_is_one_number_is_one_for_each_axis():
    """As MONAI has it where an edge is one number; `spatial_dims` is 3 unless it is said."""
    said = {**SMALL["ViT"], "_target_": "ViT", "patch_size": 8}
    del said["spatial_dims"]
    found = choice(said)
    assert isinstance(found, dict)
    assert found["parameters"]["img_size"] == [32, 32, 32]
    assert found["parameters"]["patch_size"] == [8, 8, 8]


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({"_target_": "AHNet", "spatial_dims": 2}, "inference.json names 'AHNet'"),
        ({"_target_": "scripts.nets.UNet", "spatial_dims": 2}, "names 'scripts.nets.UNet'"),
        ({"_target_": "UNet", "channels": "@width", "strides": [2]}, "'UNet', but channels by"),
        ({"_target_": "DenseNet", "act": "elu"}, "'DenseNet' with act 'elu'"),
        ({"_target_": "ViT", **SMALL["ViT"], "classification": False}, "classification False"),
        ({"_target_": "ViT", "in_channels": 1}, "classification False"),
        ({"_target_": "$open('flag', 'w')"}, "names none in plain data"),
    ],
)
def test_a_network_that_is_not_taken_over_is_told_as_it_is_named(
    imported, tmp_path, network, words
):
    fields, said = imported(write_bundle(tmp_path / "bundle", network))
    assert "architecture" not in fields
    assert words in said["/architecture"]


def test_a_class_by_its_whole_path_is_monais(imported, tmp_path):
    whole = {"_target_": f"{NETS}.EfficientNetBN", **SMALL["EfficientNetBN"], "progress": "$1 > 2"}
    fields, _ = imported(write_bundle(tmp_path / "bundle", whole))
    assert fields["architecture"] == choice(
        {"_target_": "EfficientNetBN", **SMALL["EfficientNetBN"]}
    )
