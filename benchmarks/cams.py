"""Grad-CAM where work can be shared, and on other networks than a ResNet-50.

Fourteen targets of one image; eight jobs with a target each; Grad-CAM and two
gradient methods in one request; a ViT-S; a ResNet-18 in three axes. Peers are
timed as their documentation uses them, and as fast as they can be made: all
parameters frozen but the target layer's, so that their graph begins there::

    python -m benchmarks.cams [rounds]
"""

import sys
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from captum.attr import InputXGradient as CaptumInputXGradient
from captum.attr import Saliency as CaptumSaliency
from torch import Tensor, nn

from benchmarks.contest import (
    ALIKE,
    ALONE,
    EQUAL,
    FLOOR,
    NARROW,
    OURS,
    UNLIKE,
    Case,
    Own,
    Run,
    bare,
    error,
    hold,
    loaded,
    unlike,
)
from benchmarks.grad_cam import (
    CAPTUM,
    CAPTUM_TUNED,
    PEER,
    PEER_TUNED,
    SHAPE,
    TARGET,
    oracle,
    shown,
)
from benchmarks.measure import DEVICE
from benchmarks.networks import ResNet18, noise, seeded
from benchmarks.peers import (
    PACKAGES,
    captum_cams,
    frozen,
    monai_cams,
    pytorch_grad_cams,
)
from benchmarks.resnet50 import TARGET_LAYER, resnet50
from workers.architectures.vit import Vit
from workers.methods.grad_cam import GradCam
from workers.methods.input_x_gradient import InputXGradient
from workers.methods.saliency import Saliency
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import SLICE
from workers.targets.scalars import ClassLogit

CLASSES: Final = 14
JOBS: Final = 8
MONAI, MONAI_TUNED = "MONAI (default)", "MONAI (best-tuned)"
BRIEF: Final = "whylight, the service's own slices"
EQUAL_PIXELS: Final = 2e-3
"""Error of pixels' gradients on a GPU: a rectifier that falls to its other side moves many."""

THREE, THREE_TUNED = "three calls (default)", "three calls (best-tuned)"
VIT: Final = Vit(
    channels=3, classes=CLASSES, image=(224, 224), patch=16, width=384, depth=12, heads=6
)
VIT_LAYER: Final = "blocks.11.norm1"


def fourteen_targets() -> Case:
    image, targets = noise(SHAPE), range(CLASSES)
    own = Own(loaded(resnet50(), SHAPE, (TARGET_LAYER,)))
    plan, logits = GradCam(layer=TARGET_LAYER).plan, tuple(map(ClassLogit, targets))
    peer = pytorch_grad_cams(resnet50(), TARGET_LAYER)
    tuned = pytorch_grad_cams(frozen(resnet50(), TARGET_LAYER), TARGET_LAYER)
    captum = captum_cams(resnet50(), TARGET_LAYER)
    captum_tuned = captum_cams(frozen(resnet50(), TARGET_LAYER), TARGET_LAYER)
    batch = image[None]
    runs: dict[str, Run] = {
        OURS: lambda: own.one(plan(image, logits)).values[:, 0],
        PEER: lambda: np.concatenate([peer(batch, [each]) for each in targets]),
        PEER_TUNED: lambda: np.concatenate([tuned(batch, [each]) for each in targets]),
        CAPTUM: lambda: torch.stack([captum(batch, each) for each in targets]),
        CAPTUM_TUNED: lambda: torch.stack([captum_tuned(batch, each) for each in targets]),
        FLOOR: bare(resnet50(), batch),
    }
    expected = oracle(resnet50(), TARGET_LAYER, image, targets)
    errors = {name: error(runs[name](), expected) for name in (OURS, CAPTUM, CAPTUM_TUNED)}
    errors |= {name: shown(runs[name](), expected) for name in (PEER, PEER_TUNED)}
    facts = {"passes": "1 forward, 14 backward from the score to the layer"}
    bars = {PEER: 35.0, CAPTUM: 12.0, CAPTUM_TUNED: 12.0}
    return Case("14 targets, ResNet-50", runs, bars, errors, facts=facts)


def eight_jobs() -> Case:
    images = [noise(SHAPE, seed) for seed in range(1, JOBS + 1)]
    targets = [(TARGET + 3 * k) % CLASSES for k in range(JOBS)]
    plan = GradCam(layer=TARGET_LAYER).plan

    runtime = loaded(resnet50(), SHAPE, (TARGET_LAYER,))

    def served(slice_seconds: float, runtime: TorchRuntime = runtime) -> Run:
        own = Own(runtime, slice_seconds=slice_seconds)

        def run() -> Tensor:
            pairs = zip(images, targets, strict=True)
            jobs = own.ask(*([plan(image, (ClassLogit(each),))] for image, each in pairs))
            return torch.cat([maps.values[0] for (maps,) in jobs])

        return run

    peer = pytorch_grad_cams(resnet50(), TARGET_LAYER)
    tuned = pytorch_grad_cams(frozen(resnet50(), TARGET_LAYER), TARGET_LAYER)
    captum = captum_cams(frozen(resnet50(), TARGET_LAYER), TARGET_LAYER)
    pairs = [(image[None], target) for image, target in zip(images, targets, strict=True)]
    batch = torch.stack(images)
    runs: dict[str, Run] = {
        OURS: served(ALONE),
        PEER: lambda: np.concatenate([peer(image, [target]) for image, target in pairs]),
        "pytorch-grad-cam (one batch)": lambda: peer(batch, targets),
        PEER_TUNED: lambda: tuned(batch, targets),
        CAPTUM_TUNED: lambda: torch.stack([captum(image, target) for image, target in pairs]),
        BRIEF: served(SLICE),
        NARROW: served(ALONE, runtime.recast(torch.bfloat16)),
        FLOOR: bare(resnet50(), batch),
    }
    net = resnet50()
    expected = torch.cat([oracle(net, TARGET_LAYER, image[0], [target]) for image, target in pairs])
    ours = (OURS, CAPTUM_TUNED, BRIEF)
    errors = {
        name: max(map(error, runs[name](), expected))
        if name in ours
        else shown(runs[name](), expected)
        for name in list(runs)[:-2]
    }
    limits = {UNLIKE: (max(map(unlike, runs[NARROW](), expected)), ALIKE)}
    modes = {NARROW: {PEER: 3.4}}
    return Case("8 jobs, ResNet-50", runs, {PEER: 3.4}, errors, limits=limits, modes=modes)


def three_methods() -> Case:
    image = noise(SHAPE)
    own = Own(loaded(resnet50(), SHAPE, (TARGET_LAYER,)))
    methods = (GradCam(layer=TARGET_LAYER), Saliency(), InputXGradient())

    def ours() -> list[Tensor]:
        (maps,) = own.ask([each.plan(image, (ClassLogit(TARGET),)) for each in methods])
        return [each.values[0] for each in maps]

    def calls(net: nn.Module) -> Run:
        cam = pytorch_grad_cams(net, TARGET_LAYER)
        saliency, product = CaptumSaliency(net), CaptumInputXGradient(net)

        def run() -> list[Tensor]:
            batch = image[None].clone().requires_grad_()
            return [
                torch.as_tensor(cam(image[None], [TARGET])),
                saliency.attribute(batch, TARGET, abs=False)[0].detach(),
                product.attribute(batch, TARGET)[0].detach(),
            ]

        return run

    runs: dict[str, Run] = {
        OURS: ours,
        THREE: calls(resnet50()),
        # the layer's own parameters still want gradients: else there would be no map
        THREE_TUNED: calls(frozen(resnet50(), TARGET_LAYER)),
        FLOOR: gradient_alone(image),
    }
    expected = oracle(resnet50(), TARGET_LAYER, image, [TARGET])
    precise = image.double()[None].requires_grad_()
    (slope,) = torch.autograd.grad(resnet50().double()(precise)[0, TARGET], [precise])
    truths = [slope[0], (slope * precise)[0].detach()]
    errors = {}
    for name in list(runs)[:3]:
        cam, *others = runs[name]()
        apart = error(cam, expected) if name == OURS else shown(cam, expected)
        errors[name] = max(apart, *map(error, others, truths))
    allowed = EQUAL if DEVICE.type == "cpu" else EQUAL_PIXELS
    return Case("three methods, ResNet-50", runs, {THREE: 3.2}, errors, allowed)


def gradient_alone(image: Tensor) -> Run:
    """Return what no way can do without: one gradient down to the image."""
    net = frozen(resnet50())

    def run() -> None:
        batch = image[None].clone().requires_grad_()
        torch.autograd.grad(net(batch)[0, TARGET], [batch])

    return run


def vit() -> nn.Module:
    torch.manual_seed(0)
    return VIT.build().eval().to(DEVICE)


def vision_transformer() -> Case:
    image, tokens = noise(SHAPE), VIT.tokens()
    assert tokens is not None
    runtime = loaded(vit(), SHAPE, (VIT_LAYER,), tokens=tokens)
    own, narrow = Own(runtime), Own(runtime.recast(torch.bfloat16))
    plan, batch = GradCam(layer=VIT_LAYER).plan, image[None]
    peer = pytorch_grad_cams(vit(), VIT_LAYER, tokens.on_grid)
    tuned = pytorch_grad_cams(frozen(vit(), VIT_LAYER), VIT_LAYER, tokens.on_grid)
    expected = oracle(vit(), VIT_LAYER, image, range(CLASSES), tokens.on_grid)
    target = int(expected.flatten(1).amax(1).argmax())  # nothing is shown of a negative map
    runs: dict[str, Run] = {
        OURS: lambda: own.one(plan(image, (ClassLogit(target),))).values[0, 0],
        PEER: lambda: peer(batch, [target]),
        PEER_TUNED: lambda: tuned(batch, [target]),
        NARROW: lambda: narrow.one(plan(image, (ClassLogit(target),))).values[0, 0],
        FLOOR: bare(vit(), batch),
    }
    expected = expected[target : target + 1]
    errors = {OURS: error(runs[OURS](), expected[0])}
    errors |= {name: shown(runs[name](), expected) for name in (PEER, PEER_TUNED)}
    limits = {UNLIKE: (unlike(runs[NARROW](), expected[0]), ALIKE)}
    # no bar in float32: the peer takes as long as 3.1 bare forward passes, so nothing could hold it
    modes = {NARROW: {PEER: 3.5}}
    return Case("ViT-S", runs, {}, errors, limits=limits, modes=modes)


def volume() -> Case:
    shape, layer = (1, 64, 64, 64), "layer4"

    def net() -> nn.Module:
        return seeded(ResNet18, 3, 1)

    image = noise(shape)
    own = Own(loaded(net(), shape, (layer,)))
    plan, batch = GradCam(layer=layer).plan, image[None]
    expected = oracle(net(), layer, image, range(CLASSES))
    target = int(expected.flatten(1).amax(1).argmax())
    peers = {MONAI: net(), MONAI_TUNED: frozen(net(), layer)}
    methods = {name: monai_cams(each, layer) for name, each in peers.items()}
    runs: dict[str, Run] = {
        OURS: lambda: own.one(plan(image, (ClassLogit(target),))).values[0, 0],
        MONAI: lambda: methods[MONAI](batch, class_idx=target),
        MONAI_TUNED: lambda: methods[MONAI_TUNED](batch, class_idx=target),
        FLOOR: bare(net(), batch),
    }
    positive = expected[target].clamp(min=0)
    errors = {OURS: error(runs[OURS](), expected[target])}
    errors |= {
        name: error(method.compute_map(batch, class_idx=target)[0, 0].detach(), positive)
        for name, method in methods.items()
    }
    return Case("ResNet-18 in three axes, 64^3", runs, {MONAI: 2.5}, errors)


def cases() -> Iterator[Case]:
    yield fourteen_targets()
    yield eight_jobs()
    yield three_methods()
    yield vision_transformer()
    yield volume()


def main() -> int:
    torch.set_num_threads(1)
    return hold("cams", PACKAGES, cases(), int(sys.argv[1]) if len(sys.argv) > 1 else None)


if __name__ == "__main__":
    raise SystemExit(main())
