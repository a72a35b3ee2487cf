"""Every method equals captum's within 1e-6 of the map's range, in float64."""

from collections.abc import Callable

import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from captum.attr import LayerGradCam
from captum.attr import Occlusion as CaptumOcclusion
from captum.attr import Saliency as CaptumSaliency
from torch import Tensor

from tests.support.engine import (
    LAYER,
    attribute,
    image_for,
    logits,
    small_net,
    small_runtime,
    through,
)
from workers.methods.base import Method
from workers.methods.grad_cam import GradCam
from workers.methods.integrated_gradients import IntegratedGradients
from workers.methods.occlusion import Occlusion
from workers.methods.saliency import Saliency
from workers.scheduler import Scheduler

BASELINE = 0.25
WINDOW, STRIDE = 6, 4


def saliency(image: Tensor, target: int, axes: int) -> Tensor:
    net = small_net(axes, len(image), image.dtype)
    return CaptumSaliency(net).attribute(image[None].requires_grad_(), target=target, abs=False)[0]


def integrated(image: Tensor, target: int, axes: int) -> Tensor:
    net = small_net(axes, len(image), image.dtype)
    return CaptumIntegratedGradients(net).attribute(
        image[None], BASELINE, target, n_steps=20, method="riemann_middle"
    )[0]


def grad_cam(image: Tensor, target: int, axes: int) -> Tensor:
    net = small_net(axes, len(image), image.dtype)
    layer = net.get_submodule(LAYER)
    return LayerGradCam(net, layer).attribute(image[None], target)[0].detach()


def occlusion(image: Tensor, target: int, axes: int) -> Tensor:
    """Return one value a pixel, which is constant on the cells of our map."""
    net = small_net(axes, len(image), image.dtype)
    window = (len(image), *(WINDOW,) * axes)
    strides = (len(image), *(STRIDE,) * axes)
    return CaptumOcclusion(net).attribute(
        image[None], window, strides, baselines=BASELINE, target=target
    )[0][:1]


CASES: list[tuple[Method, Callable[[Tensor, int, int], Tensor]]] = [
    (Saliency(), saliency),
    (IntegratedGradients(steps=20, baseline=BASELINE), integrated),
    (GradCam(layer=LAYER), grad_cam),
    (Occlusion(window=WINDOW, stride=STRIDE, baseline=BASELINE), occlusion),
]


def spread_to(values: Tensor, like: Tensor) -> Tensor:
    """Repeat each cell's value over its pixels, up to the image's edge."""
    if values.shape == like.shape:
        return values
    cell = 2  # gcd of window and stride
    for axis in range(1, values.dim()):
        values = values.repeat_interleave(cell, axis).narrow(axis, 0, like.shape[axis])
    return values


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("method", "oracle"), CASES, ids=lambda case: getattr(case, "name", ""))
def test_method_equals_captum(
    method: Method, oracle: Callable[[Tensor, int, int], Tensor], axes: int, channels: int
) -> None:
    image = image_for(axes, channels)
    targets = (1, 4)
    maps = attribute(method, small_runtime(axes, channels), image, logits(*targets))
    for values, target in zip(maps.values, targets, strict=True):
        expected = oracle(image, target, axes)
        span = (expected.max() - expected.min()).item()
        assert span > 0
        error = (spread_to(values, expected) - expected).abs().max().item()
        assert error <= 1e-6 * span


@pytest.mark.parametrize("axes", [2, 3])
def test_all_methods_in_one_job_equal_captum(axes: int) -> None:
    image = image_for(axes)
    plans = [method.plan(image, logits(0, 2)) for method, _ in CASES]
    outcomes = through(Scheduler(), small_runtime(axes), *plans)
    for maps, (_, oracle) in zip(outcomes, CASES, strict=True):
        expected = oracle(image, 2, axes)
        span = (expected.max() - expected.min()).item()
        error = (spread_to(maps.values[1], expected) - expected).abs().max().item()
        assert error <= 1e-6 * span


@pytest.mark.parametrize(("method", "oracle"), CASES[:3], ids=["saliency", "integrated", "cam"])
def test_float32_stays_within_two_millionths_of_float64(
    method: Method, oracle: Callable[[Tensor, int, int], Tensor]
) -> None:
    image = image_for()
    runtime = small_runtime(dtype=torch.float32)
    maps = attribute(method, runtime, image.float(), logits(3))
    expected = oracle(image, 3, 2)
    span = (expected.max() - expected.min()).item()
    assert (maps.values[0].double() - expected).abs().max().item() <= 2e-6 * span
