"""CAMs of a transformer: tokens laid out over the image, the class token left aside."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.engine import attribute, logits, settled
from workers.architectures.vit import Vit
from workers.methods.ablation_cam import AblationCam
from workers.methods.base import METHODS
from workers.methods.grad_cam import GradCam
from workers.passes import Ability
from workers.runtimes.torch import TorchRuntime

SIZES = {1: (24,), 2: (12, 8), 3: (8, 4, 12)}
CAMS = [
    "ablation_cam",
    "eigen_cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "layer_cam",
    "score_cam",
    "xgrad_cam",
]


def vit(axes: int = 2, *, class_token: bool = True) -> Vit:
    return Vit(
        classes=5, image=SIZES[axes], patch=4, width=8, depth=3, heads=2, class_token=class_token
    )


def runtime_of(shape: Vit, layers: tuple[str, ...] | None = None) -> TorchRuntime:
    torch.manual_seed(8)
    model = shape.build().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return TorchRuntime(model, (1, *shape.image), layers, tokens=shape.tokens())


def image_of(axes: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, *SIZES[axes], generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    ("class_token", "layer"), [(True, "blocks.2.norm1"), (False, "norm")], ids=["class", "mean"]
)
def test_the_deepest_tokens_that_the_score_depends_on_are_chosen(
    class_token: bool, layer: str, axes: int
) -> None:
    """After the last attention only the class token counts: no cell has a gradient there."""
    shape = vit(axes, class_token=class_token)
    probed = runtime_of(shape).probed
    grid = tuple(size // 4 for size in SIZES[axes])
    assert [(each.name, each.shape) for each in probed.layers] == [(layer, (8, *grid))]
    assert probed.layers[0].stride == (4.0,) * axes


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_grad_cam_is_the_tokens_weighted_by_their_mean_gradient(axes: int) -> None:
    shape = vit(axes)
    runtime, image = runtime_of(shape), image_of(axes)
    maps = attribute(settled(GradCam(), runtime), runtime, image, logits(0, 3))
    kept: list[Tensor] = []
    handle = runtime.model.get_submodule("blocks.2.norm1").register_forward_hook(
        lambda _module, _args, output: kept.append(output)
    )
    outputs = runtime.model(image[None].requires_grad_())
    handle.remove()
    grid = tuple(size // 4 for size in SIZES[axes])
    for values, target in zip(maps.values, (0, 3), strict=True):
        (gradient,) = torch.autograd.grad(outputs[0, target], kept[0], retain_graph=True)
        weights = gradient[0, 1:].mean(0)
        by_hand = torch.stack([token @ weights for token in kept[0][0, 1:]]).detach()
        torch.testing.assert_close(values[0].flatten(), by_hand)
        assert values[0].shape == grid
    assert maps.affine.diagonal().tolist() == [4.0] * axes + [1.0]


def test_an_ablated_channel_is_the_same_number_of_every_token() -> None:
    runtime, image = runtime_of(vit(), ("blocks.2.norm1",)), image_of()
    maps = attribute(settled(AblationCam(), runtime), runtime, image, logits(1))
    model = runtime.model
    norm = model.get_submodule("blocks.2.norm1")
    score = model(image[None])[0, 1]
    features: list[Tensor] = []
    total = torch.zeros(3, 2, dtype=torch.float64)

    def cut(channel: int) -> Tensor:
        def hook(_module: object, _args: object, output: Tensor) -> Tensor:
            features.append(output.clone())
            output = output.clone()
            output[..., channel] = 0
            return output

        handle = norm.register_forward_hook(hook)
        try:
            return model(image[None])[0, 1]
        finally:
            handle.remove()

    with torch.no_grad():
        for channel in range(8):
            weight = score - cut(channel)
            total += weight * features[-1][0, 1:, channel].reshape(3, 2)
    torch.testing.assert_close(maps.values[0, 0], total.detach())


def test_the_mean_of_tokens_and_a_linear_head_are_the_original_cams() -> None:
    runtime, image = runtime_of(vit(class_token=False)), image_of()
    assert runtime.probed.linear_heads == {"norm"}
    maps = attribute(settled(METHODS["class_activation_map"](), runtime), runtime, image, logits(2))
    model = runtime.model
    score = model(image[None])[0, 2] - model.head.bias[2]
    torch.testing.assert_close(maps.values.mean(), score.detach())
    assert Ability.LINEAR_HEAD not in runtime_of(vit()).probed.abilities


@pytest.mark.parametrize("name", CAMS)
def test_every_cam_lies_on_the_grid_of_patches(name: str) -> None:
    runtime = runtime_of(vit(3))
    maps = attribute(settled(METHODS[name](), runtime), runtime, image_of(3), logits(0, 1))
    assert maps.values.shape == (2, 1, 2, 1, 3)
    assert np.allclose(maps.affine[:-1, -1], 1.5)
    assert maps.values.abs().max().item() > 0
    runtime.check()


def test_guided_backpropagation_is_refused_because_there_is_no_relu() -> None:
    assert "no ReLU" in runtime_of(vit()).probed.unable[Ability.RECTIFIER_RULES]
