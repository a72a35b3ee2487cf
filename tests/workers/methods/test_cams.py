"""Every CAM equals a slow version written straight from its paper, and its axioms hold."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from service.errors.models import MethodError
from service.errors.requests import InvalidParameter, MissingAbility
from tests.support.engine import (
    CLASSES,
    CONV,
    FLAT,
    LAYER,
    SIZES,
    attribute,
    image_for,
    logits,
    settled,
    small_runtime,
    through,
)
from workers.methods.base import METHODS, Maps, ModelFacts
from workers.methods.eigen_cam import EigenCam
from workers.methods.grad_cam import GradCam
from workers.methods.hires_cam import HiResCam
from workers.methods.layer_cam import LayerCam
from workers.methods.xgrad_cam import XGradCam
from workers.passes import Step
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

AXES = [1, 2, 3]
NAMES = ["grad_cam_plus_plus", "xgrad_cam", "layer_cam", "hires_cam", "eigen_cam"]


class Rectified(nn.Module):
    """A rectified layer ``body``, then a head: pooled and linear, or flat and with a kink."""

    def __init__(self, axes: int, *, pooled: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(CONV[axes](1, 4, 3, stride=4, padding=1), nn.ReLU())
        cells = self.body(torch.zeros(1, 1, *SIZES[axes])).numel()
        self.head = (
            nn.Sequential(FLAT[axes](1), nn.Flatten(), nn.Linear(4, CLASSES))
            if pooled
            else nn.Sequential(nn.Flatten(), nn.Linear(cells, 9), nn.ReLU(), nn.Linear(9, CLASSES))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def rectified(axes: int, *, pooled: bool) -> tuple[Rectified, TorchRuntime]:
    torch.manual_seed(11)
    model = Rectified(axes, pooled=pooled).double()
    return model, TorchRuntime(model, (1, *SIZES[axes]), ("body",))


def layer_of(model: Rectified, image: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """Return the layer's output and the score's gradient there."""
    features = model.body(image[None]).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.head(features)[0, target], features)
    return features.detach()[0], gradient[0]


def places(features: Tensor) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(size) for size in features.shape[1:])))


def grad_cam_plus_plus(model: Rectified, image: Tensor, target: int) -> Tensor:
    """Eq. 19: alpha from second and third derivatives of ``Y = exp(S)``, by autograd.

    Y is taken relative to its own value here, which cancels in alpha.
    """
    features = model.body(image[None]).detach()[0]
    start = model.head(features[None])[0, target].item()
    total = torch.zeros(features.shape[1:], dtype=torch.float64)
    for channel in range(len(features)):
        weight = 0.0
        for place in places(features):
            value = features[channel][place].clone().requires_grad_()
            varied = features.clone()
            varied[channel][place] = value
            y = (model.head(varied[None])[0, target] - start).exp()
            first = torch.autograd.grad(y, value, create_graph=True)[0]
            second = torch.autograd.grad(first, value, create_graph=True)[0]
            third = torch.autograd.grad(second, value)[0]
            bottom = 2 * second + features[channel].sum() * third
            if first > 0:
                weight += (second / bottom * first).item()
        total += weight * features[channel]
    return total


def xgrad_cam(model: Rectified, image: Tensor, target: int) -> Tensor:
    features, gradient = layer_of(model, image, target)
    total = torch.zeros(features.shape[1:], dtype=torch.float64)
    for channel in range(len(features)):
        whole = features[channel].sum()
        if whole > 0:
            weight = sum(
                features[channel][place] / whole * gradient[channel][place]
                for place in places(features)
            )
            total += weight * features[channel]
    return total


def layer_cam(model: Rectified, image: Tensor, target: int) -> Tensor:
    return by_cell(model, image, target, lambda gradient: max(gradient, 0.0))


def hires_cam(model: Rectified, image: Tensor, target: int) -> Tensor:
    return by_cell(model, image, target, lambda gradient: gradient)


def by_cell(
    model: Rectified, image: Tensor, target: int, weight: Callable[[float], float]
) -> Tensor:
    features, gradient = layer_of(model, image, target)
    total = torch.zeros(features.shape[1:], dtype=torch.float64)
    for place in places(features):
        for channel in range(len(features)):
            total[place] += weight(gradient[channel][place].item()) * features[channel][place]
    return total


def eigen_cam(model: Rectified, image: Tensor, _target: int) -> Tensor:
    features = model.body(image[None]).detach()[0]
    matrix = features.flatten(1).T
    _, _, right = torch.linalg.svd(matrix)
    values = matrix @ right[0]
    return (values * values.sum().sign()).reshape(features.shape[1:])


ORACLES = [grad_cam_plus_plus, xgrad_cam, layer_cam, hires_cam, eigen_cam]


def near(ours: Tensor, expected: Tensor) -> None:
    span = (expected.max() - expected.min()).item()
    assert span > 0
    assert (ours - expected).abs().max().item() <= 1e-6 * span


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "flat"])
@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.__name__)
def test_method_equals_its_paper(
    oracle: Callable[[Rectified, Tensor, int], Tensor], axes: int, pooled: bool
) -> None:
    model, runtime = rectified(axes, pooled=pooled)
    image = image_for(axes)
    method = settled(METHODS[oracle.__name__](), runtime)
    maps = attribute(method, runtime, image, logits(1, 4))
    for values, target in zip(maps.values, (1, 4), strict=True):
        near(values[0], oracle(model, image, target))
    grid = maps.values.shape[2:]
    cells = [size / count for size, count in zip(SIZES[axes], grid, strict=True)]
    assert maps.affine.diagonal().tolist() == [*cells, 1.0]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", ["hires_cam", "xgrad_cam"])
def test_with_a_pooled_linear_head_it_equals_grad_cam(name: str, axes: int) -> None:
    """Gradients are then the same everywhere, so that no average of them differs."""
    _, runtime = rectified(axes, pooled=True)
    image = image_for(axes)
    ours, grad = (
        attribute(settled(METHODS[each](), runtime), runtime, image, logits(2)).values
        for each in (name, "grad_cam")
    )
    torch.testing.assert_close(ours, grad)


def test_hires_cam_and_xgrad_cam_share_out_the_same_sum() -> None:
    _, runtime = rectified(2, pooled=False)
    sums = [
        attribute(method(layer="body"), runtime, image_for(), logits(3)).values.sum()
        for method in (HiResCam, XGradCam)
    ]
    torch.testing.assert_close(*sums)


def test_hires_cam_of_a_linear_head_adds_up_to_the_score_without_its_bias() -> None:
    model, runtime = rectified(2, pooled=True)
    maps = attribute(HiResCam(layer="body"), runtime, image_for(), logits(2))
    score = model(image_for()[None])[0, 2] - model.head[-1].bias[2]
    torch.testing.assert_close(maps.values.sum(), score.detach())


def test_layer_cam_has_no_negative_value_on_a_rectified_layer() -> None:
    _, runtime = rectified(2, pooled=False)
    maps = attribute(LayerCam(layer="body"), runtime, image_for(), logits(0, 1, 2, 3, 4))
    assert maps.values.min().item() >= 0


def test_eigen_cam_is_the_same_for_every_target_and_states_its_share() -> None:
    model, runtime = rectified(2, pooled=False)
    maps = attribute(EigenCam(layer="body"), runtime, image_for(), logits(0, 3))
    assert torch.equal(maps.values[0], maps.values[1])
    singular = torch.linalg.svdvals(model.body(image_for()[None])[0].detach().flatten(1))
    share = (singular[0] ** 2 / (singular**2).sum()).item()
    assert [each["explained"] for each in maps.extras] == pytest.approx([share, share])


@pytest.mark.parametrize("name", NAMES)
def test_a_silent_layer_gives_a_map_of_zeros_and_no_error(name: str) -> None:
    model, runtime = rectified(2, pooled=True)
    with torch.no_grad():
        model.body[0].bias.fill_(-100)
    maps = attribute(settled(METHODS[name](), runtime), runtime, image_for(), logits(1))
    assert torch.equal(maps.values, torch.zeros_like(maps.values))


@pytest.mark.parametrize("name", NAMES)
def test_float32_stays_within_two_millionths_of_float64(name: str) -> None:
    wide = small_runtime()
    narrow = small_runtime(dtype=torch.float32)
    method = settled(METHODS[name](), wide)
    expected = attribute(method, wide, image_for(), logits(3)).values
    ours = attribute(method, narrow, image_for().float(), logits(3)).values
    assert ours.dtype == torch.float32
    span = (expected.max() - expected.min()).item()
    assert (ours.double() - expected).abs().max().item() <= 2e-6 * span


def test_all_in_one_job_equal_alone_and_take_one_row() -> None:
    runtime, image = small_runtime(), image_for()
    methods = [settled(METHODS[name](), runtime) for name in NAMES]
    alone = [attribute(method, runtime, image, logits(1, 2)) for method in methods]
    runtime.served.batches.clear()
    plans = [method.plan(image, logits(1, 2)) for method in methods]
    merged: list[Maps] = through(Scheduler(), runtime, *plans)
    assert runtime.served.batches == [1]
    for ours, expected in zip(merged, alone, strict=True):
        torch.testing.assert_close(ours.values, expected.values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [*NAMES, "grad_cam", "score_cam"])
def test_a_layer_that_the_model_lacks_is_refused(name: str) -> None:
    facts = ModelFacts(layers=("deep",))
    assert METHODS[name]().settled(facts).layer == "deep"  # type: ignore[attr-defined]
    with pytest.raises(InvalidParameter):
        METHODS[name](layer="other").settled(facts)  # type: ignore[call-arg]
    with pytest.raises(MissingAbility, match=name):
        METHODS[name]().settled(ModelFacts())


def test_a_layer_without_a_grid_is_refused() -> None:
    image = image_for()
    plan = GradCam(layer=LAYER).plan(image, logits(0))
    plan.send(None)
    flat = Step(0, 1, activations={LAYER: torch.ones(1, 8)}, gradients={LAYER: torch.ones(1, 1, 8)})
    with pytest.raises(MethodError, match="no spatial grid"):
        plan.send(flat)
