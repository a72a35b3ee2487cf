"""Record what torchvision, timm and nnU-Net publish: names, shapes, and logits of small networks.

    python tests/support/layouts/record.py tests/support/layouts

It needs those three beside torch; the tests need only what it wrote. Weights are
drawn from the names of tensors, so that they need not be kept.
"""

import json
import sys
from pathlib import Path

import timm
import torch
import torchvision
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from timm.models import convnext, densenet, efficientnet, resnet, senet, swin_transformer
from timm.models import vision_transformer as vit
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig

from tests.support.layouts.drawn import drawn, image


def published() -> dict[str, nn.Module]:
    """Return published networks, by library and name, as their documentation builds them."""

    names = {
        "torchvision": [
            "resnet18",
            "resnet50",
            "densenet121",
            "efficientnet_b0",
            "vit_b_16",
            "swin_t",
            "convnext_tiny",
        ],
        "timm": [
            "resnet18",
            "resnet50",
            "densenet121",
            "efficientnet_b0",
            "tf_efficientnet_b0",
            "vit_base_patch16_224",
            "swin_tiny_patch4_window7_224",
            "convnext_tiny",
            "legacy_seresnet50",
        ],
    }
    with torch.device("meta"):
        found = {
            f"torchvision/{name}": torchvision.models.get_model(name)
            for name in names["torchvision"]
        }
    return found | {f"timm/{name}": timm.create_model(name) for name in names["timm"]}


def small() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Return small networks of the same classes, each with the shape of an image."""

    few = {"num_classes": 3}
    return {
        "torchvision/resnet-basic": (
            models.resnet.ResNet(models.resnet.BasicBlock, [1, 1, 2, 1], **few),
            (3, 64, 64),
        ),
        "torchvision/resnet-bottleneck": (
            models.resnet.ResNet(models.resnet.Bottleneck, [1, 2, 1, 1], **few),
            (3, 64, 64),
        ),
        "torchvision/densenet": (
            models.DenseNet(growth_rate=4, block_config=(2, 3), num_init_features=8, **few),
            (3, 64, 64),
        ),
        "torchvision/efficientnet": (models.efficientnet_b0(**few), (3, 64, 64)),
        "torchvision/vit": (
            models.VisionTransformer(32, 8, 2, 2, 16, 64, **few),
            (3, 32, 32),
        ),
        "torchvision/swin": (
            models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], **few),
            (3, 64, 64),
        ),
        "torchvision/convnext": (
            models.ConvNeXt([CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)], **few),
            (3, 64, 64),
        ),
        "timm/resnet-basic": (
            resnet.ResNet(resnet.BasicBlock, (1, 1, 2, 1), **few),
            (3, 64, 64),
        ),
        "timm/densenet": (
            densenet.DenseNet(growth_rate=4, block_config=(2, 3), **few),
            (3, 64, 64),
        ),
        "timm/efficientnet": (efficientnet.efficientnet_b0(**few), (3, 64, 64)),
        "timm/tf_efficientnet": (efficientnet.tf_efficientnet_b0(**few), (3, 64, 64)),
        "timm/vit": (
            vit.VisionTransformer(32, 8, embed_dim=16, depth=2, num_heads=2, **few),
            (3, 32, 32),
        ),
        "timm/swin": (
            swin_transformer.SwinTransformer(
                64, 4, embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=4, **few
            ),
            (3, 64, 64),
        ),
        "timm/convnext": (
            convnext.ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 12, 16, 24), **few),
            (3, 64, 64),
        ),
        "timm/seresnet": (senet.legacy_seresnet50(**few), (3, 64, 64)),
        "nnunet/2d": (_unet(PlainConvUNet, 2, [[1, 1], [2, 2], [2, 2], [2, 1]], True), (1, 32, 24)),
        "nnunet/3d": (
            _unet(PlainConvUNet, 3, [[1, 1, 1], [1, 2, 2], [2, 2, 2]], False),
            (1, 8, 16, 16),
        ),
    }


def _unet(kind, axes, strides, deep):
    """Return a network as nnU-Net builds it of its plans."""
    scales = len(strides)
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[axes]
    norm = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[axes]
    kernels = [[1, *[3] * (axes - 1)], *[[3] * axes] * (scales - 1)]
    return kind(
        1,
        scales,
        [4, 6, 8, 10][:scales],
        convolution,
        kernels,
        strides,
        2,
        3,
        2,
        conv_bias=True,
        norm_op=norm,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep,
    )


def main(folder: Path) -> None:
    """Write what is published, and what small networks put out."""
    names = {
        key: {name: list(each.shape) for name, each in network.state_dict().items()}
        for key, network in published().items()
    }
    answers = {}
    for key, (built, shape) in small().items():
        network = built.double().eval()
        own = network.state_dict(keep_vars=True)
        shapes = {n: list(v.shape) for n, v in own.items() if v.dtype == torch.float64}
        first = {id(v): n for n, v in reversed(own.items())}
        known = {name: first[id(own[name])] for name in shapes}
        weights = drawn({name: shapes[name] for name in known.values()})
        given = {name: weights[other] for name, other in known.items()}
        network.load_state_dict(given, strict=False)  # without counters and indices
        with torch.no_grad():
            logits = network(image(shape))
        logits = logits[0] if isinstance(logits, list) else logits
        answers[key] = {
            "image": shape,
            "tensors": shapes,
            "aliases": {name: other for name, other in known.items() if name != other},
            "logits": [
                round(float(x), 9) for x in logits.flatten()[:: max(1, logits.numel() // 24)]
            ],
        }
    _write(folder / "published.json", names)
    _write(folder / "small.json", answers)


def _write(path: Path, found: dict[str, object]) -> None:
    """Write one line an entry, so that a change can be read."""
    lines = [
        f"{json.dumps(key)}: {json.dumps(each, separators=(',', ':'))}"
        for key, each in found.items()
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
