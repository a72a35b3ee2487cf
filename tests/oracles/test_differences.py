"""Derivatives at a layer and along a path are what small differences of the score give."""

import pytest
import torch
from torch import Tensor

from tests.support.engine import LAYER, attribute, image_for, logits, small_net, small_runtime
from workers.methods.grad_cam import GradCam
from workers.methods.hires_cam import HiResCam
from workers.methods.integrated_gradients import IntegratedGradients

STEP = 1e-6
TARGET = 2
BASELINE = 0.25
STEPS = 6


def features_of(image: Tensor, axes: int) -> Tensor:
    """Return what the layer puts out, shape ``(channels, *grid)``."""
    with torch.no_grad():
        return small_net(axes).features[:5](image[None])[0]


def scores_from(features: Tensor, axes: int) -> Tensor:
    """Return the scores of a layer's outputs ``(n, channels, *grid)``."""
    net = small_net(axes)
    with torch.no_grad():
        return net.head(net.pool(features.clone().relu()).flatten(1))[:, TARGET]


def slope(features: Tensor, direction: Tensor, axes: int) -> float:
    """Return the change of the score along `direction`."""
    ends = torch.stack([features + STEP * direction, features - STEP * direction])
    above, below = scores_from(ends, axes).tolist()
    return (above - below) / (2 * STEP)


@pytest.mark.parametrize("axes", [2, 3])
def test_grad_cams_weights_are_the_slopes_of_whole_channels(axes: int) -> None:
    image = image_for(axes)
    features = features_of(image, axes)
    expected = torch.zeros_like(features[0])
    for channel in range(len(features)):
        direction = torch.zeros_like(features)
        direction[channel] = 1 / features[channel].numel()  # the mean over the grid
        expected += slope(features, direction, axes) * features[channel]
    maps = attribute(GradCam(layer=LAYER), small_runtime(axes), image, logits(TARGET))
    torch.testing.assert_close(maps.values[0, 0], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("axes", [2, 3])
def test_a_cell_of_hires_cam_is_the_slope_along_its_own_features(axes: int) -> None:
    image = image_for(axes)
    features = features_of(image, axes)
    values = attribute(HiResCam(layer=LAYER), small_runtime(axes), image, logits(TARGET)).values
    cells = list(torch.cartesian_prod(*map(torch.arange, features.shape[1:])).tolist())
    for cell in cells[:: len(cells) // 20]:
        direction = torch.zeros_like(features)
        direction[(slice(None), *cell)] = features[(slice(None), *cell)]
        expected = slope(features, direction, axes)
        assert values[(0, 0, *cell)].item() == pytest.approx(expected, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("axes", [2, 3])
def test_integrated_gradients_add_up_the_slopes_along_their_path(axes: int) -> None:
    """The map's sum: the mean of the score's slopes at the middle of each step of the way."""
    image, net = image_for(axes), small_net(axes)
    way = image - BASELINE
    shares = [(k + 0.5) / STEPS for k in range(STEPS)]
    ends = torch.stack([BASELINE + (at + h) * way for at in shares for h in (STEP, -STEP)])
    with torch.no_grad():
        scores = net(ends)[:, TARGET].reshape(STEPS, 2)
    slopes = (scores[:, 0] - scores[:, 1]) / (2 * STEP)
    method = IntegratedGradients(steps=STEPS, baseline=BASELINE)
    maps = attribute(method, small_runtime(axes), image, logits(TARGET))
    assert maps.values[0].sum().item() == pytest.approx(slopes.mean().item(), rel=1e-6)


@pytest.mark.parametrize("axes", [2, 3])
def test_a_pixel_of_integrated_gradients_is_its_own_slope_along_the_path(axes: int) -> None:
    image, net = image_for(axes), small_net(axes)
    way = image - BASELINE
    points = torch.stack([BASELINE + (k + 0.5) / STEPS * way for k in range(STEPS)])
    method = IntegratedGradients(steps=STEPS, baseline=BASELINE)
    values = attribute(method, small_runtime(axes), image, logits(TARGET)).values[0].flatten()
    for place in range(0, image.numel(), image.numel() // 20):
        moved = torch.zeros(image.numel(), dtype=torch.float64)
        moved[place] = STEP
        with torch.no_grad():
            above, below = (
                net(points + sign * moved.view_as(image))[:, TARGET].mean().item()
                for sign in (1, -1)
            )
        expected = way.flatten()[place].item() * (above - below) / (2 * STEP)
        assert values[place].item() == pytest.approx(expected, rel=1e-5, abs=1e-8)
