"""CAMs of shifted windows: tokens keep their places, and stages have grids of their own."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.support.engine import attribute, logits, settled
from workers.architectures.swin import Swin
from workers.methods.base import METHODS, Maps
from workers.methods.occlusion import Occlusion
from workers.methods.saliency import Saliency
from workers.passes import Ability
from workers.runtimes.torch import TorchRuntime

SIZES = {1: (32,), 2: (32, 16), 3: (16, 8, 16)}
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
EARLY = "stages.0"
TARGETS = (1, 3)


def runtime_of(axes: int) -> TorchRuntime:
    shape = Swin(
        classes=5,
        image=SIZES[axes],
        patch=2,
        width=4,
        depths=(2, 2),
        heads=(2, 2),
        window=2,
    )
    torch.manual_seed(9)
    model = shape.build().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(0.1 * torch.randn_like(parameter))
    return TorchRuntime(model, (1, *shape.image), None, tokens=shape.tokens())


def image_of(axes: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, *SIZES[axes], generator=generator, dtype=torch.float64)


def seen(runtime: TorchRuntime, image: Tensor, layer: str) -> tuple[Tensor, dict[int, Tensor]]:
    """Return what a layer puts out and each score's gradient there, ``(width, *grid)``."""
    kept: list[Tensor] = []
    handle = runtime.model.get_submodule(layer).register_forward_hook(
        lambda _module, _args, output: kept.append(output)
    )
    outputs = runtime.model(image[None].clone().requires_grad_())
    handle.remove()
    gradients = {
        target: torch.autograd.grad(outputs[0, target], kept[0], retain_graph=True)[0]
        for target in TARGETS
    }
    return (
        kept[0][0].detach().movedim(-1, 0),
        {target: each[0].movedim(-1, 0) for target, each in gradients.items()},
    )


def replaced(runtime: TorchRuntime, image: Tensor, layer: str, channel: int) -> Tensor:
    """Return the outputs without one channel of a layer."""

    def hook(_module: object, _args: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[..., channel] = 0
        return output

    handle = runtime.model.get_submodule(layer).register_forward_hook(hook)
    try:
        return runtime.model(image[None])[0]
    finally:
        handle.remove()


def combined(features: Tensor, weights: list[float]) -> Tensor:
    total = torch.zeros(features.shape[1:], dtype=features.dtype)
    for channel, weight in zip(features, weights, strict=True):
        total += weight * channel
    return total


def grad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    return combined(features, [each.mean().item() for each in gradient])


def xgrad_cam(features: Tensor, gradient: Tensor) -> Tensor:
    shares = [((f * g).sum() / f.sum()).item() for f, g in zip(features, gradient, strict=True)]
    return combined(features, shares)


def hires_cam(features: Tensor, gradient: Tensor) -> Tensor:
    return sum(f * g for f, g in zip(features, gradient, strict=True))


def layer_cam(features: Tensor, gradient: Tensor) -> Tensor:
    return hires_cam(features, torch.maximum(gradient, torch.zeros(())))


def grad_cam_plus_plus(features: Tensor, gradient: Tensor) -> Tensor:
    """Positive values of the layer alone make the sum, as our page says."""
    weights = []
    for f, g in zip(features, gradient, strict=True):
        whole = sum(max(value, 0.0) for value in f.flatten().tolist())
        rising = [max(value, 0.0) for value in g.flatten().tolist()]
        weights.append(sum(value / (2 + value * whole) for value in rising))
    return combined(features, weights)


def eigen_cam(features: Tensor, _gradient: Tensor) -> Tensor:
    matrix = features.flatten(1).T
    values = matrix @ torch.linalg.svd(matrix)[2][0]
    return (values * values.sum().sign()).reshape(features.shape[1:])


ORACLES = [grad_cam, xgrad_cam, hires_cam, layer_cam, grad_cam_plus_plus, eigen_cam]


def cam(name: str, runtime: TorchRuntime, image: Tensor, layer: str) -> Maps:
    return attribute(settled(METHODS[name](layer=layer), runtime), runtime, image, logits(*TARGETS))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_each_stage_has_a_layer_on_its_own_grid(axes: int) -> None:
    probed = runtime_of(axes).probed
    assert [(each.name, each.shape, each.stride) for each in probed.layers] == [
        ("norm", (8, *(size // 4 for size in SIZES[axes])), (4.0,) * axes),
        (EARLY, (4, *(size // 2 for size in SIZES[axes])), (2.0,) * axes),
    ]
    assert all("names no layer" in each.reason for each in probed.layers)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("layer", ["norm", EARLY])
def test_every_cam_of_gradients_equals_its_formula_on_the_tokens_places(
    layer: str, axes: int
) -> None:
    runtime, image = runtime_of(axes), image_of(axes)
    features, gradients = seen(runtime, image, layer)
    for oracle in ORACLES:
        maps = cam(oracle.__name__, runtime, image, layer)
        for values, target in zip(maps.values, TARGETS, strict=True):
            torch.testing.assert_close(values[0], oracle(features, gradients[target]))
        edge = SIZES[axes][0] / features.shape[1]
        assert maps.affine.diagonal().tolist() == [edge] * axes + [1.0]
    runtime.check()


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_with_the_mean_and_a_linear_head_the_maps_share_out_the_score(axes: int) -> None:
    """CAM is the head's own weights; Grad-CAM and its kin are it, by cell; its mean is the score.

    Without one channel the score loses that channel's mean by its weight.
    """
    runtime, image = runtime_of(axes), image_of(axes)
    assert runtime.probed.linear_heads == {"norm"}
    features, _ = seen(runtime, image, "norm")
    head, cells = runtime.model.head, math.prod(features.shape[1:])
    scores = runtime.model(image[None])[0].detach() - head.bias.detach()
    for k, target in enumerate(TARGETS):
        weights = head.weight[target].detach()
        whole = combined(features, weights.tolist())
        torch.testing.assert_close(whole.mean(), scores[target])
        for name, expected in (
            ("class_activation_map", whole),
            ("grad_cam", whole / cells),
            ("hires_cam", whole / cells),
            ("xgrad_cam", whole / cells),
            ("layer_cam", combined(features, (weights.clamp(min=0) / cells).tolist())),
            (
                "ablation_cam",
                combined(features, (weights * features.flatten(1).mean(1)).tolist()),
            ),
        ):
            torch.testing.assert_close(cam(name, runtime, image, "norm").values[k, 0], expected)


def test_an_ablated_channel_is_the_same_number_of_every_token() -> None:
    runtime, image = runtime_of(2), image_of(2)
    maps = cam("ablation_cam", runtime, image, EARLY)
    features, _ = seen(runtime, image, EARLY)
    score = runtime.model(image[None])[0]
    with torch.no_grad():
        for values, target in zip(maps.values, TARGETS, strict=True):
            falls = [
                (score - replaced(runtime, image, EARLY, channel))[target].item()
                for channel in range(len(features))
            ]
            torch.testing.assert_close(values[0], combined(features, falls))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_score_cam_shows_the_image_through_each_channel(axes: int) -> None:
    runtime, image = runtime_of(axes), image_of(axes)
    maps = cam("score_cam", runtime, image, "norm")
    features, _ = seen(runtime, image, "norm")
    gains = []
    with torch.no_grad():
        nothing = runtime.model(torch.zeros_like(image)[None])[0]
        for channel in features:
            wide = functional.interpolate(
                channel[None, None], SIZES[axes], mode=MODES[axes], align_corners=False
            )[0]
            mask = (wide - wide.min()) / (wide.max() - wide.min())
            gains.append(runtime.model((mask * image)[None])[0] - nothing)
    for values, target in zip(maps.values, TARGETS, strict=True):
        expected = combined(features, [each[target].item() for each in gains])
        torch.testing.assert_close(values[0], expected)


def test_attention_within_windows_is_refused_with_the_reason() -> None:
    probed = runtime_of(2).probed
    assert Ability.ATTENTION not in probed.abilities
    assert "within windows" in probed.unable[Ability.ATTENTION]
    assert not METHODS["attention_rollout"].needs <= probed.abilities
    assert not METHODS["gradient_attention"].needs <= probed.abilities


def test_gradients_and_masks_see_the_whole_model() -> None:
    runtime, image = runtime_of(2), image_of(2)
    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(runtime.model(leaf[None])[0, 1], leaf)
    saliency = attribute(Saliency(), runtime, image, logits(1)).values[0]
    torch.testing.assert_close(saliency, gradient)
    maps = attribute(Occlusion(window=4, stride=4, baseline=0.0), runtime, image, logits(1))
    hidden = image.clone()
    hidden[0, 8:12, 4:8] = 0
    with torch.no_grad():
        fall = runtime.model(image[None])[0, 1] - runtime.model(hidden[None])[0, 1]
    torch.testing.assert_close(maps.values[0, 0, 2, 1], fall)
