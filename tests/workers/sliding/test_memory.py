"""What windows are for: memory that one window sets, and not the volume."""

import numpy as np
import torch
from torch import nn

from service.domain.inputs import SlidingWindow
from tests.support.engine import run_alone
from workers.methods.base import METHODS
from workers.passes import Gradient
from workers.rows import Clean
from workers.runtimes.memory import peak_bytes
from workers.runtimes.torch import TorchRuntime
from workers.sliding.passes import Sliding
from workers.targets.scalars import ClassLogit, OfWindows, RegionLogits

EDGE, WIDTH = 16, 16
VOXEL = 4
"""Bytes."""


def peak(side):
    """The most bytes alive at once, beside image and weights, for a gradient on a cube."""
    torch.manual_seed(0)
    convolutions = [nn.Conv3d(1, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv3d(WIDTH, 2, 1)]
    net = nn.Sequential(*convolutions).eval()
    runtime = TorchRuntime(net, (1, EDGE, EDGE, EDGE))
    assert runtime.probed
    image = torch.randn(1, side, side, side)
    target = RegionLogits(1, np.ones((side,) * 3, np.bool_), "0" * 64)
    sliding = Sliding(SlidingWindow(size=(EDGE,) * 3, overlap=0.25), torch.zeros(0))

    def plan():
        return (yield Gradient(Clean(image), (target,)))

    def windowed():
        run_alone(sliding.led(plan()), runtime)

    def whole():
        batch = image[None].clone().requires_grad_()
        torch.autograd.grad(target(net(batch)).sum(), [batch])

    kept = [*net.parameters(), image]
    windowed()  # shares of windows are kept, and are no part of the volume
    return peak_bytes(windowed, kept), peak_bytes(whole, kept)


def test_a_larger_volume_takes_its_gradient_more_and_nothing_else():
    (small, small_whole), (large, large_whole) = peak(24), peak(48)
    more, window = VOXEL * (48**3 - 24**3), VOXEL * EDGE**3
    # the gradient itself, a byte for the region's mask, and shares of windows of other places
    assert large - small <= 1.25 * more + 10 * window
    assert large_whole - small_whole > WIDTH * more  # every layer of the one graph


def test_the_rest_is_what_one_window_takes():
    small, whole = peak(40)
    assert small < whole / 3


def peak_of_a_box(side):
    """The same for the map of a box, whose score is read out of one window."""
    torch.manual_seed(0)
    convolutions = [nn.Conv3d(1, WIDTH, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1)]
    net = nn.Sequential(*convolutions, nn.Flatten()).eval()
    runtime = TorchRuntime(net, (1, EDGE, EDGE, EDGE))
    assert runtime.probed
    image, target = torch.randn(1, side, side, side), OfWindows(((1, ClassLogit(0)),))
    rules = SlidingWindow(size=(EDGE,) * 3, overlap=0.25, blend="none")
    method = METHODS["integrated_gradients"](steps=8, baseline=0.0)

    def mapped():
        plan = Sliding(rules, torch.zeros(0)).maps(method, image, (target,), None)
        assert run_alone(plan, runtime, 1).values.shape == (1, 1, side, side, side)

    return peak_bytes(mapped, [*net.parameters(), image])


def test_a_larger_volume_takes_the_map_of_a_box_more_and_nothing_else():
    small, large = peak_of_a_box(24), peak_of_a_box(48)
    assert large - small <= 1.05 * VOXEL * (48**3 - 24**3)
