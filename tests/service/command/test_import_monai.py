"""MONAI's networks as a bundle names them, held against MONAI's own."""

import inspect
from importlib import import_module

import pytest
import torch

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
        "img_size": [32, 32],
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


@pytest.mark.parametrize("kind", sorted(NETWORKS.keys() - {"Unet"}))
def test_what_a_bundle_leaves_out_is_as_monai_has_it(kind):
    """A default of MONAI's that is another here is told in the draft."""
    known = NETWORKS[kind]
    fields = ARCHITECTURES[known.name].model_fields
    for name, each in inspect.signature(getattr(import_module(NETS), kind)).parameters.items():
        if each.default is not inspect.Parameter.empty and name in fields:
            ours = known.defaults.get(name, fields[name].default)
            assert (name, ours) == (name, each.default)
        elif name in known.fixed:
            value = known.defaults.get(name, known.fixed[name][0])
            theirs = [*each.default] if isinstance(each.default, tuple) else each.default
            assert value == theirs or theirs in known.fixed[name]


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({"_target_": "SEResNet50", "spatial_dims": 2}, "inference.json names 'SEResNet50'"),
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
