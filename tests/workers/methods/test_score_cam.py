"""Score-CAM equals a slow version of its paper, and says what its cap left out."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.support.engine import (
    LAYER,
    SIZES,
    attribute,
    image_for,
    logits,
    small_net,
    small_runtime,
    through,
)
from workers.methods.score_cam import ScoreCam
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

AXES = [1, 2, 3]
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
BASELINE = 0.25


def by_the_paper(image: Tensor, target: int, baseline: float, channels: list[int]) -> Tensor:
    """Definitions 2 and 3: one channel at a time, one model call each."""
    axes = image.dim() - 1
    net = small_net(axes, len(image))
    features = net.features[:5](image[None])[0].detach()
    reference = torch.full_like(image, baseline)
    total = torch.zeros(features.shape[1:], dtype=image.dtype)
    with torch.no_grad():
        floor = net(reference[None])[0, target]
        for channel in channels:
            mask = functional.interpolate(
                features[None, channel : channel + 1], image.shape[1:], mode=MODES[axes]
            )[0]
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            seen = reference + mask * (image - reference)
            total += (net(seen[None])[0, target] - floor) * features[channel]
    return total


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("image_channels", [1, 3])
def test_it_equals_the_paper(axes: int, image_channels: int) -> None:
    image = image_for(axes, image_channels)
    method = ScoreCam(layer=LAYER, baseline=BASELINE)
    maps = attribute(method, small_runtime(axes, image_channels), image, logits(1, 4), chunk=3)
    for values, target in zip(maps.values, (1, 4), strict=True):
        expected = by_the_paper(image, target, BASELINE, list(range(8)))
        torch.testing.assert_close(values[0], expected, rtol=0, atol=1e-10)
    assert maps.extras == ({"channels": 8.0, "channels_of_layer": 8.0},) * 2


def test_a_cap_keeps_the_channels_that_vary_most_and_says_so() -> None:
    image = image_for()
    maps = attribute(
        ScoreCam(layer=LAYER, channels=3, baseline=0.0), small_runtime(), image, logits(2)
    )
    features = small_net().features[:5](image[None])[0].detach()
    kept = features.flatten(1).std(1).topk(3).indices.tolist()
    torch.testing.assert_close(maps.values[0, 0], by_the_paper(image, 2, 0.0, kept))
    assert maps.extras[0] == {"channels": 3.0, "channels_of_layer": 8.0}


def test_constant_channels_are_not_tried() -> None:
    net = small_net()
    with torch.no_grad():
        net.features[4].weight[5:] = 0
    runtime = TorchRuntime(net, (1, *SIZES[2]), (LAYER,))
    maps = attribute(ScoreCam(layer=LAYER), runtime, image_for(), logits(0))
    assert maps.extras[0]["channels"] == 5.0


def test_a_constant_layer_gives_a_map_of_zeros() -> None:
    net = small_net()
    with torch.no_grad():
        net.features[4].weight.zero_()
    runtime = TorchRuntime(net, (1, *SIZES[2]), (LAYER,))
    runtime.recall(small_runtime().probed)  # a probe would find that the layer follows nothing
    maps = attribute(ScoreCam(layer=LAYER), runtime, image_for(), logits(0))
    assert torch.equal(maps.values, torch.zeros_like(maps.values))


def test_merged_with_another_image_equals_alone() -> None:
    runtime, method = small_runtime(), ScoreCam(layer=LAYER, baseline=0.0)
    images = image_for(), image_for(seed=9)
    alone = [attribute(method, runtime, image, logits(0, 3)).values for image in images]
    merged = through(Scheduler(), runtime, *(method.plan(image, logits(0, 3)) for image in images))
    for ours, expected in zip(merged, alone, strict=True):
        torch.testing.assert_close(ours.values, expected, rtol=0, atol=1e-12)
