"""Grad-CAM of one 224x224 image on a ResNet-50, against pytorch-grad-cam and captum.

One process, one thread, same weights, same image; ours goes through the
scheduler, as every job does. Equality comes first: a map that differs from a
float64 oracle by more than 1e-5 of its range makes the timing worthless, and one
in bfloat16 has to correlate with it as far as the service asks::

    python -m benchmarks.grad_cam [rounds]

captum and pytorch-grad-cam are timed as their documentation uses them, and as fast
as they can be made: all parameters frozen but the target layer's, so that their
graph begins there. The floor is one forward pass of the bare model, without a graph;
that of bfloat16 is one of the same narrow network.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contest import (
    ALIKE,
    EQUAL,
    FLOOR,
    NARROW,
    NARROW_FLOOR,
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
from benchmarks.networks import noise
from benchmarks.peers import (
    PACKAGES,
    captum_cams,
    frozen,
    pytorch_grad_cam,
    pytorch_grad_cams,
)
from benchmarks.resnet50 import TARGET_LAYER, resnet50
from workers.methods.grad_cam import GradCam
from workers.targets.scalars import ClassLogit

TARGET: Final = 9
"""A class whose map is positive: pytorch-grad-cam shows nothing of a negative one."""

SHAPE: Final = (3, 224, 224)
PEER, PEER_TUNED = "pytorch-grad-cam (default)", "pytorch-grad-cam (best-tuned)"
CAPTUM, CAPTUM_TUNED = "captum (default)", "captum (best-tuned)"
PICTURES: Final = 1e-4
"""Largest difference of a picture in [0, 1]."""


def oracle(
    net: nn.Module,
    layer: str,
    image: Tensor,
    targets: Sequence[int],
    on_grid: Callable[[Tensor], Tensor] = lambda output: output,
) -> Tensor:
    """Return signed maps by the definition, in float64, shape ``(K, *grid)``."""
    kept: list[Tensor] = []
    handle = net.double().get_submodule(layer).register_forward_hook(lambda *a: kept.append(a[2]))
    scores = net(image.double()[None])[0]
    handle.remove()
    features = on_grid(kept[0])[0]
    maps = []
    for target in targets:
        (gradient,) = torch.autograd.grad(scores[target], kept, retain_graph=True)
        weights = on_grid(gradient)[0].flatten(1).mean(1)
        maps.append(torch.tensordot(weights, features, dims=1))
    return torch.stack(maps).detach()


def displayed(values: Tensor, package: Any) -> np.ndarray[Any, Any]:
    """Do to a signed map what pytorch-grad-cam does to its own before returning it."""
    positive = values.clamp(min=0)[None].cpu().numpy()
    scale = package.utils.image.scale_cam_image
    scaled: np.ndarray[Any, Any] = scale(scale(positive, (224, 224)))
    return scaled


def shown(values: Tensor, expected: Tensor) -> float:
    """Return the largest difference of pytorch-grad-cam's pictures ``(K, *size)``, in [0, 1].

    It sums channels in float32, which costs it a digit: up to `PICTURES` is taken
    for equal, and then stands as a share of that beside the others' `EQUAL`.
    """
    package = pytorch_grad_cam()
    pictures = np.concatenate([displayed(each, package) for each in expected])
    assert pictures.max() > pictures.min(), "a blank map would equal anything"
    return float(np.abs(np.asarray(values) - pictures).max()) * EQUAL / PICTURES


def cases() -> Iterator[Case]:
    image = noise(SHAPE)
    runtime = loaded(resnet50(), SHAPE, (TARGET_LAYER,))
    own, narrow = Own(runtime), Own(runtime.recast(torch.bfloat16))
    plan, batch, target = GradCam(layer=TARGET_LAYER).plan, image[None], (ClassLogit(TARGET),)
    peers = {PEER: resnet50(), PEER_TUNED: frozen(resnet50(), TARGET_LAYER)}
    cams = {name: pytorch_grad_cams(net, TARGET_LAYER) for name, net in peers.items()}
    captum = captum_cams(resnet50(), TARGET_LAYER)
    captum_tuned = captum_cams(frozen(resnet50(), TARGET_LAYER), TARGET_LAYER)
    runs: dict[str, Run] = {
        OURS: lambda: own.one(plan(image, target)).values[0, 0],
        PEER: lambda: cams[PEER](batch, [TARGET]),
        PEER_TUNED: lambda: cams[PEER_TUNED](batch, [TARGET]),
        CAPTUM: lambda: captum(batch, TARGET),
        CAPTUM_TUNED: lambda: captum_tuned(batch, TARGET),
        NARROW: lambda: narrow.one(plan(image, target)).values[0, 0],
        FLOOR: bare(resnet50(), batch),
        NARROW_FLOOR: bare(narrow.runtime.model, batch),
    }
    expected = oracle(resnet50(), TARGET_LAYER, image, [TARGET])
    errors = {name: error(runs[name](), expected[0]) for name in (OURS, CAPTUM, CAPTUM_TUNED)}
    errors |= {name: shown(runs[name](), expected) for name in cams}
    yield Case(
        "1 image, ResNet-50",
        runs,
        {PEER: 2.8, CAPTUM_TUNED: 0.95, FLOOR: 0.9},
        errors,
        facts={"passes": "1 forward, 1 backward from the score to the layer"},
        limits={UNLIKE: (unlike(runs[NARROW](), expected[0]), ALIKE)},
        modes={NARROW: {PEER: 4.0}},
        count=15,
    )


def main() -> int:
    torch.set_num_threads(1)
    return hold("grad_cam", PACKAGES, cases(), int(sys.argv[1]) if len(sys.argv) > 1 else None)


if __name__ == "__main__":
    raise SystemExit(main())
