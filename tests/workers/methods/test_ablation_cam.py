"""Ablation-CAM equals a slow version of its paper, and says what its cap left out."""

import pytest
import torch
from torch import Tensor

from tests.support.engine import (
    LAYER,
    SIZES,
    TOP,
    attribute,
    image_for,
    logits,
    small_net,
    small_runtime,
    through,
)
from workers.methods.ablation_cam import AblationCam
from workers.methods.class_activation_map import ClassActivationMap
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

AXES = [1, 2, 3]


def by_the_paper(image: Tensor, target: int, channels: list[int]) -> Tensor:
    """Eq. 3 and 4 without the common division: one channel at a time, in the head alone."""
    net = small_net(image.dim() - 1, len(image))
    features = net.features[:5](image[None]).detach()
    total = torch.zeros(features.shape[2:], dtype=image.dtype)

    def score(layer: Tensor) -> Tensor:
        return net.head(net.pool(layer.clamp(min=0)).flatten(1))[0, target].detach()

    for channel in channels:
        without = features.clone()
        without[:, channel] = 0
        total += (score(features) - score(without)) * features[0, channel]
    return total


@pytest.mark.parametrize("axes", AXES)
def test_it_equals_the_paper(axes: int) -> None:
    image = image_for(axes, 2)
    method = AblationCam(layer=LAYER)
    maps = attribute(method, small_runtime(axes, 2), image, logits(1, 4), chunk=3)
    for values, target in zip(maps.values, (1, 4), strict=True):
        torch.testing.assert_close(values[0], by_the_paper(image, target, list(range(8))))
    assert maps.extras == ({"channels": 8.0, "channels_of_layer": 8.0},) * 2


def test_with_a_linear_head_the_weight_is_the_channels_share_of_the_score() -> None:
    """Without channel c the score falls by w_c mean(F_c), where CAM's weight is w_c."""
    image, runtime = image_for(), small_runtime()
    maps = attribute(AblationCam(layer=TOP), runtime, image, logits(2))
    net = small_net()
    features = net.features(image[None])[0].detach()
    weights = net.head.weight[2].detach() * features.flatten(1).mean(1)
    torch.testing.assert_close(maps.values[0, 0], torch.einsum("c,chw->hw", weights, features))
    cam = attribute(ClassActivationMap(layer=TOP), runtime, image, logits(2))
    assert not torch.allclose(cam.values, maps.values)


def test_a_cap_keeps_the_strongest_channels_and_says_so() -> None:
    image = image_for()
    maps = attribute(AblationCam(layer=LAYER, channels=3), small_runtime(), image, logits(2))
    features = small_net().features[:5](image[None])[0].detach()
    kept = features.flatten(1).square().mean(1).topk(3).indices.tolist()
    torch.testing.assert_close(maps.values[0, 0], by_the_paper(image, 2, kept))
    assert maps.extras[0] == {"channels": 3.0, "channels_of_layer": 8.0}


def test_a_layer_of_zeros_gives_a_map_of_zeros() -> None:
    net = small_net()
    with torch.no_grad():
        net.features[4].weight.zero_()
        net.features[4].bias.zero_()
    runtime = TorchRuntime(net, (1, *SIZES[2]), (LAYER,))
    runtime.recall(small_runtime().probed)  # a probe would find that the layer follows nothing
    maps = attribute(AblationCam(layer=LAYER), runtime, image_for(), logits(0, 1))
    assert torch.equal(maps.values, torch.zeros(2, 1, 10, 8, dtype=torch.float64))
    assert maps.extras[0]["channels"] == 0.0


def test_merged_with_another_image_equals_alone() -> None:
    runtime, method = small_runtime(), AblationCam(layer=LAYER)
    images = image_for(), image_for(seed=9)
    alone = [attribute(method, runtime, image, logits(0, 3)).values for image in images]
    merged = through(Scheduler(), runtime, *(method.plan(image, logits(0, 3)) for image in images))
    for ours, expected in zip(merged, alone, strict=True):
        torch.testing.assert_close(ours.values, expected, rtol=0, atol=1e-12)
