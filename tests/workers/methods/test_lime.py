"""LIME: captum's fit to the same subsets, and small scores that must not vanish."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Lime as CaptumLime
from pydantic import ValidationError
from torch import Tensor, nn

from tests.support.coalitions import BASELINE
from tests.support.engine import (
    SmallNet,
    attribute,
    image_for,
    logits,
    small_net,
    small_runtime,
    stopped,
)
from tests.support.regression import Regression
from workers.methods.lime import Lime
from workers.methods.superpixels import segmented
from workers.passes import TimeUp
from workers.runtimes.torch import TorchRuntime


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(("width", "ridge"), [(0.25, 1.0), (0.6, 0.01)])
def test_the_map_equals_captums_fit_to_the_same_subsets(
    axes: int, width: float, ridge: float
) -> None:
    image = image_for(axes)
    labels = segmented(image, 9)
    method = Lime(segments=9, samples=40, width=width, ridge=ridge, baseline=BASELINE, seed=2)
    rows = iter(method.subsets(int(labels.max()) + 1).double())

    def kernel(_image: Tensor, _masked: Tensor, shown: Tensor, **_: Any) -> float:
        distance = 1 - math.sqrt(shown.mean().item())
        return math.exp(-((distance / width) ** 2))

    captum = CaptumLime(
        small_net(axes), Regression(ridge), kernel, lambda *_, **__: next(rows)[None]
    )
    expected = captum.attribute(
        image[None], BASELINE, 3, feature_mask=labels[None, None], n_samples=41
    )[0]
    maps = attribute(method, small_runtime(axes), image, logits(1, 3))
    torch.testing.assert_close(maps.values[1], expected.to(image), rtol=1e-5, atol=1e-6)


class Faint(nn.Module):
    """A network whose scores are a million times smaller."""

    def __init__(self, net: SmallNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * 1e-6


def test_small_scores_give_the_same_picture_and_not_zeros() -> None:
    image, method = image_for(), Lime(segments=9, samples=64)
    ordinary = attribute(method, small_runtime(), image, logits(1)).values
    faint = TorchRuntime(Faint(small_net()), image.shape)
    values = attribute(method, faint, image, logits(1)).values
    assert ordinary.std() > 1e-3
    torch.testing.assert_close(values * 1e6, ordinary)


def test_a_larger_penalty_gives_smaller_weights() -> None:
    image, runtime = image_for(), small_runtime()
    norms = [
        attribute(
            Lime(segments=9, samples=64, ridge=ridge), runtime, image, logits(1)
        ).values.norm()
        for ridge in (1e-6, 1.0, 100.0)
    ]
    assert norms[0] > norms[1] > norms[2] > 0


def test_the_fit_is_the_share_of_variance_that_is_told() -> None:
    image = image_for()
    maps = attribute(Lime(segments=9, samples=64, ridge=1e-9), small_runtime(), image, logits(0, 1))
    for extras in maps.extras:
        assert 0.5 < extras["fit"] <= 1.0
    flat = Faint(small_net())
    flat.forward = lambda x: x.flatten(1)[:, :1] * 0 + 2.0  # type: ignore[method-assign]
    (extras,) = attribute(Lime(samples=8), TorchRuntime(flat, image.shape), image, logits(0)).extras
    assert extras["fit"] == 1.0


def test_when_time_is_up_the_fit_is_to_whole_pairs_and_says_to_how_many() -> None:
    image, runtime = image_for(), small_runtime()
    method = Lime(segments=9, samples=32, baseline=BASELINE)
    part = stopped(method.plan(image, logits(1)), runtime, 1 + 25)
    assert part.partial
    fewer = attribute(method.model_copy(update={"samples": 24}), runtime, image, logits(1))
    subsets = [each.subsets(9) for each in (method, method.model_copy(update={"samples": 24}))]
    assert torch.equal(subsets[0][:25], subsets[1])
    torch.testing.assert_close(part.values, fewer.values)
    assert part.extras == fewer.extras
    assert part.extras[0]["samples"] == 24
    with pytest.raises(TimeUp):
        stopped(method.plan(image, logits(1)), runtime, 1 + 23)


def test_subsets_come_with_their_complements_after_the_whole_image() -> None:
    subsets = Lime(samples=12).subsets(7)
    assert subsets.shape == (13, 7)
    assert subsets[0].all()
    assert torch.equal(subsets[1::2], ~subsets[2::2])


@pytest.mark.parametrize("samples", [4, 20, 64])
def test_the_least_penalty_gives_the_smallest_weights_that_fit(samples: int) -> None:
    """As a pseudo-inverse does: also of fewer subsets than segments, where many weights fit."""
    image, net = image_for(), small_net()
    labels = segmented(image, 40)
    method = Lime(segments=40, samples=samples, ridge=1e-9, baseline=BASELINE)
    subsets = method.subsets(int(labels.max()) + 1)
    masks = subsets[:, labels][:, None].to(image)
    with torch.no_grad():
        scores = net(masks * image + (1 - masks) * BASELINE)[:, 1].numpy().astype(np.float64)
    shown = subsets.double().numpy()
    kernel = np.exp(-(((1 - np.sqrt(shown.mean(1))) / method.width) ** 2))
    root = np.sqrt(kernel)[:, None]
    design = root * (shown - np.average(shown, 0, kernel))
    left = root[:, 0] * (scores - np.average(scores, weights=kernel))
    weights = torch.from_numpy(np.linalg.pinv(design, rcond=1e-9) @ left)
    maps = attribute(method, small_runtime(), image, logits(1))
    torch.testing.assert_close(maps.values[0, 0], weights[labels].to(image), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("bad", [{"width": 0.05}, {"ridge": 1e-12}, {"width": 0}, {"ridge": 0}])
def test_what_rounding_would_decide_is_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Lime(**bad)
