"""MONAI's networks: built small, in two and three dimensions, and what if MONAI is not there."""

import os
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from workers.architectures.base import ARCHITECTURES

BLOCKS = {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 8, 8]}
DENSE = {"in_channels": 1, "out_channels": 2, "init_features": 4, "growth_rate": 2}
UP = {"in_channels": 1, "out_channels": 2}
CLASSIFIERS = [
    ("resnet", {**BLOCKS, "spatial_dims": 2, "n_input_channels": 1, "num_classes": 2}, [64, 48]),
    ("resnet", {**BLOCKS, "spatial_dims": 3, "n_input_channels": 1, "num_classes": 2}, [32] * 3),
    ("densenet", {**DENSE, "spatial_dims": 2, "block_config": [2, 2]}, [64, 64]),
    ("densenet", {**DENSE, "spatial_dims": 3, "block_config": [2, 2]}, [32, 32, 32]),
    (
        "efficientnet",
        {"model_name": "efficientnet-b0", "in_channels": 1, "num_classes": 2},
        [64, 64],
    ),
    (
        "efficientnet",
        {
            "model_name": "efficientnet-b0",
            "spatial_dims": 3,
            "in_channels": 1,
            "num_classes": 2,
            "padding": "symmetric",
        },
        [32, 32, 32],
    ),
    (
        "seresnet",
        {"spatial_dims": 2, "in_channels": 1, "num_classes": 2, "layers": [1, 1, 1, 1]},
        [64, 64],
    ),
    (
        "monai_vit",
        {
            "spatial_dims": 3,
            "in_channels": 1,
            "img_size": [16, 16, 8],
            "patch_size": [8, 8, 4],
            "hidden_size": 12,
            "mlp_dim": 16,
            "num_layers": 2,
            "num_heads": 2,
        },
        [16, 16, 8],
    ),
]
SEGMENTERS = [
    ("unet", {**UP, "spatial_dims": 2, "channels": [4, 8], "strides": [2]}, [32, 48]),
    (
        "unet",
        {
            **UP,
            "spatial_dims": 3,
            "channels": [4, 8],
            "strides": [2],
            "num_res_units": 2,
            "norm": ["group", {"num_groups": 2}],
        },
        [16, 16, 16],
    ),
    (
        "dynunet",
        {
            **UP,
            "spatial_dims": 3,
            "kernel_size": [3, 3, [1, 3, 3]],
            "strides": [1, 2, [1, 2, 2]],
            "upsample_kernel_size": [2, [1, 2, 2]],
            "filters": [4, 6, 8],
        },
        [16, 16, 16],
    ),
    ("segresnet", {**UP, "spatial_dims": 2}, [32, 32]),
    ("segresnet", {**UP, "spatial_dims": 3, "blocks_down": [1, 1], "blocks_up": [1]}, [16] * 3),
    ("swin_unetr", {**UP, "spatial_dims": 2, "feature_size": 12}, [64, 64]),
    ("swin_unetr", {**UP, "feature_size": 12}, [64, 32, 32]),
]


def network(name, parameters):
    torch.manual_seed(0)
    return ARCHITECTURES[name].model_validate(parameters).build().eval()


@pytest.mark.parametrize(("name", "parameters", "image"), CLASSIFIERS + SEGMENTERS)
def test_a_network_answers_each_row_for_itself_with_a_gradient(name, parameters, image):
    images = torch.randn(2, 1, *image, requires_grad=True)
    logits = network(name, parameters)(images)
    assert logits.shape == (2, 2) if (name, parameters, image) in CLASSIFIERS else (2, 2, *image)
    (gradient,) = torch.autograd.grad((logits[0] ** 2).sum(), images)
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0


def test_the_tokens_of_the_transformer_lie_where_it_says():
    name, parameters, image = CLASSIFIERS[-1]
    tokens = ARCHITECTURES[name].model_validate(parameters).tokens()
    net, seen = network(name, parameters), []
    net.blocks[0].register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    dark = torch.zeros(1, 1, *image)
    lit = dark.clone()
    lit[..., 8:, :8, 4:] = 1  # the patch at (1, 0, 1)
    net(dark), net(lit)
    change = tokens.on_grid(seen[1] - seen[0]).abs().sum(1)[0]
    assert change.nonzero().tolist() == [[1, 0, 1]]


def test_a_misspelt_parameter_is_refused():
    with pytest.raises(ValidationError):
        ARCHITECTURES["unet"].model_validate({**SEGMENTERS[0][1], "chanels": [4]})


def told(program, **environment):
    """Return what a process of its own prints."""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout


def test_without_monai_its_networks_are_listed_with_the_reason():
    out = told(
        "import sys\n"
        "sys.modules['monai'] = None\n"
        "from workers.catalog import catalog\n"
        "from workers.architectures.base import ARCHITECTURES\n"
        "print(sorted(ARCHITECTURES), catalog(()).unavailable)\n"
    )
    listed, _, unavailable = out.partition("] ")
    assert "'residual_cnn', 'swin', 'vit'" in listed
    assert "unet'" not in listed.replace("plain_conv_unet", "")
    assert "'unet': 'It needs monai, which is not installed.'" in unavailable


def test_monai_is_not_imported_before_one_of_its_networks_is_built():
    out = told(
        "import sys\n"
        "from workers.architectures.base import ARCHITECTURES\n"
        "ARCHITECTURES['resnet'].model_validate({'block': 'basic', 'layers': [1, 1, 1, 1]})\n"
        "print('monai' in sys.modules)\n"
    )
    assert out.strip() == "False"


def test_a_deployers_own_network_joins_by_entry_point(tmp_path):
    (tmp_path / "tiny_net.py").write_text(
        "from torch import nn\n"
        "from workers.architectures.base import ARCHITECTURES, Architecture\n"
        "@ARCHITECTURES.register('tiny')\n"
        "class Tiny(Architecture):\n"
        "    classes: int\n"
        "    def build(self):\n"
        "        return nn.Sequential(nn.Flatten(), nn.LazyLinear(self.classes))\n"
    )
    info = tmp_path / "tiny_net-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-net\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[whylight.architectures]\ntiny = tiny_net\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    out = told(
        "import torch\n"
        "from workers.architectures.base import ARCHITECTURES\n"
        "net = ARCHITECTURES['tiny'].model_validate({'classes': 3}).build()\n"
        "print(tuple(net(torch.zeros(2, 1, 4, 4)).shape), dict(ARCHITECTURES.unavailable))\n",
        PYTHONPATH=path,
    )
    assert out.strip() == "(2, 3) {}"


@pytest.mark.parametrize(
    ("scale", "side", "alike"), [("b0", 64, True), ("b1", 48, True), ("b1", 64, False)]
)
def test_zeros_stand_where_tensorflow_puts_them_for_the_sizes_that_are_told(scale, side, alike):
    net = network("efficientnet", {**CLASSIFIERS[4][1], "model_name": f"efficientnet-{scale}"})
    found, wanted = [], []
    for module in net.modules():
        for name, convolution in module.named_children():
            padding = getattr(module, f"{name}_padding", None)
            if padding is None or not hasattr(convolution, "stride"):
                continue
            step, reach = convolution.stride[0], convolution.kernel_size[0]

            def watch(_module, given, output, step=step, reach=reach):
                before = given[0].shape[-1]
                found.append(output.shape[-1] - before)
                wanted.append(max(0, (-(-before // step) - 1) * step + reach - before))

            padding.register_forward_hook(watch)
    net(torch.zeros(1, 1, side, side))
    assert len(found) > 30
    assert (found == wanted) is alike
