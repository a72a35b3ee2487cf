"""Cases solved on paper, and the axioms that the papers state."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.domain.trust import Flag
from service.errors.models import NonFiniteScore
from service.errors.requests import InvalidParameter, MissingAbility
from tests.support.engine import (
    CLASSES,
    SIZES,
    WITHOUT_TOKENS,
    Polynomial,
    attribute,
    image_for,
    logits,
    run_alone,
    settled,
    small_runtime,
    through,
)
from workers.measures.base import Case
from workers.measures.completeness import Completeness
from workers.methods.base import METHODS, Maps, Method, ModelFacts
from workers.methods.grad_cam import GradCam
from workers.methods.input_x_gradient import InputXGradient
from workers.methods.integrated_gradients import IntegratedGradients
from workers.methods.occlusion import Occlusion
from workers.methods.saliency import Saliency
from workers.methods.smooth_grad import SmoothGrad
from workers.passes import Ability, Plan
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

AXES = [1, 2, 3]


def polynomial(image: Tensor) -> tuple[Polynomial, TorchRuntime]:
    model = Polynomial(image.shape)
    return model, TorchRuntime(model, image.shape)


@pytest.mark.parametrize("axes", AXES)
def test_saliency_is_the_derivative_with_its_sign(axes: int) -> None:
    image = image_for(axes)
    model, runtime = polynomial(image)
    maps = attribute(Saliency(), runtime, image, logits(0))
    torch.testing.assert_close(maps.values[0], model.w1 + 2 * model.w2 * image)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("baseline", [0.0, -1.0])
@pytest.mark.parametrize("steps", [1, 32])
def test_integrated_gradients_equal_the_integral(axes: int, baseline: float, steps: int) -> None:
    image = image_for(axes)
    model, runtime = polynomial(image)
    method = IntegratedGradients(steps=steps, baseline=baseline)
    maps = attribute(method, runtime, image, logits(0))
    by_hand = (image - baseline) * (model.w1 + model.w2 * (image + baseline))
    torch.testing.assert_close(maps.values[0], by_hand)


@pytest.mark.parametrize("axes", [2, 3])
def test_saliency_is_what_small_differences_of_the_score_give(axes: int) -> None:
    runtime, image = small_runtime(axes), image_for(axes)
    values = attribute(Saliency(), runtime, image, logits(2)).values[0].flatten()
    step = 1e-6
    for place in range(0, image.numel(), image.numel() // 40):
        moved = torch.zeros(image.numel(), dtype=torch.float64)
        moved[place] = step
        ends = torch.stack([image + moved.view_as(image), image - moved.view_as(image)])
        with torch.no_grad():
            above, below = runtime.model(ends)[:, 2].tolist()
        slope = (above - below) / (2 * step)
        assert values[place].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("axes", AXES)
def test_integrated_gradients_add_up_to_the_change_in_score(axes: int) -> None:
    runtime, image = small_runtime(axes), image_for(axes)
    maps = attribute(IntegratedGradients(steps=400, baseline=0.2), runtime, image, logits(1, 3))
    for values, extras in zip(maps.values, maps.extras, strict=True):
        change = extras["score"] - extras["baseline_score"]
        assert extras["score_change"] == pytest.approx(change)
        allowed = 1e-3 * values.abs().sum().item()  # at kinks the quadrature is of first order
        assert values.sum().item() == pytest.approx(change, abs=allowed)
        assert extras["residual"] == pytest.approx(values.sum().item() - change, abs=1e-12)


def test_the_residual_is_the_sum_minus_the_change_even_where_steps_are_few() -> None:
    runtime, image = small_runtime(), image_for()
    maps = attribute(IntegratedGradients(steps=1), runtime, image, logits(2))
    (extras,) = maps.extras
    assert abs(extras["residual"]) > 1e-6
    with torch.no_grad():
        ends = runtime.model(torch.stack([image, torch.zeros_like(image)]))[:, 2]
    assert extras["sum"] - (ends[0] - ends[1]).item() == pytest.approx(extras["residual"])


@pytest.mark.parametrize("axes", AXES)
def test_with_a_tolerance_points_are_added_until_it_is_met(axes: int) -> None:
    runtime, image = small_runtime(axes), image_for(axes)
    few, many, fine = (
        attribute(method, runtime, image, logits(1, 3))
        for method in (
            IntegratedGradients(steps=9),
            IntegratedGradients(steps=512),
            IntegratedGradients(tolerance=1e-3),
        )
    )
    assert max(abs(each["residual"] / each["score_change"]) for each in few.extras) > 1e-3
    for each, values in zip(fine.extras, fine.values, strict=True):
        assert abs(each["residual"] / each["score_change"]) <= 1e-3
        assert values.sum().item() == pytest.approx(each["sum"])
    (steps,) = {each["steps"] for each in fine.extras}
    assert 9 < steps < 256
    for found, without, truth in zip(fine.values, few.values, many.values, strict=True):
        assert (found - truth).norm() < (without - truth).norm()


class Hinge(nn.Module):
    """f(x) = max(sum(x) - at, 0): from zero to an image of sum 1, its slope jumps once."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(at, dtype=torch.float64))
        self.seen: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        sums = x.flatten(1).sum(1)
        self.seen += sums.tolist()
        return (sums - self.at).clamp(min=0)[:, None]


@pytest.mark.parametrize("at", [0.07, 0.3, 0.91])
def test_points_are_added_where_the_slope_changes_and_nowhere_else(at: float) -> None:
    image = torch.full((1, 4, 4), 1 / 16, dtype=torch.float64)
    model = Hinge(at)
    runtime = TorchRuntime(model, image.shape)
    assert not runtime.probed.mixes_rows
    model.seen.clear()
    maps = attribute(IntegratedGradients(tolerance=0.01), runtime, image, logits(0))
    assert maps.values.sum().item() == pytest.approx(1 - at, rel=0.01)
    first, later = model.seen[:9], model.seen[9:]
    assert first == pytest.approx([k / 8 for k in range(9)])
    assert all(abs(point - at) < 1 / 8 for point in later)
    assert len(set(model.seen)) == len(model.seen) == maps.extras[0]["steps"]


def test_points_are_no_more_than_allowed_and_a_missed_tolerance_is_told() -> None:
    runtime, image = small_runtime(), image_for()
    bounded = IntegratedGradients(tolerance=1e-9, max_steps=20)
    maps = attribute(bounded, runtime, image, logits(1))
    assert 9 < maps.extras[0]["steps"] <= 20
    assert bounded.estimate(image.shape, 1).gradient_rows == 20
    case = Case(maps.values[0].numpy(), score=1.0, of_scores=False, extras=maps.extras[0])
    assert Flag.TOLERANCE_MISSED in Completeness().judge(case).flags


class Normed(nn.Module):
    """Divides by the image's own deviation, whose derivative does not exist on a flat image."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1) - x.flatten(1).mean(1, keepdim=True)
        return (flat / (flat.square().mean(1, keepdim=True).sqrt() + 1e-3))[:, :CLASSES]


def test_a_path_whose_end_has_no_gradient_is_refused_with_what_to_do() -> None:
    image = image_for()
    runtime = TorchRuntime(Normed().double(), image.shape)
    between = attribute(IntegratedGradients(steps=16), runtime, image, logits(1))
    assert between.values.isfinite().all()
    adaptive = IntegratedGradients(tolerance=0.02).plan(image, logits(1))
    (outcome,) = through(Scheduler(), runtime, adaptive)
    assert isinstance(outcome, NonFiniteScore)
    assert "'baseline'" in outcome.detail
    assert "'steps'" in outcome.detail


def test_with_a_tolerance_the_number_of_steps_is_not_used() -> None:
    runtime, image = small_runtime(), image_for()
    few, many = (
        attribute(IntegratedGradients(tolerance=0.02, steps=n), runtime, image, logits(1))
        for n in (1, 512)
    )
    assert few.extras == many.extras
    assert torch.equal(few.values, many.values)


def test_a_path_that_is_straight_needs_no_more_points_than_the_first() -> None:
    image = image_for()
    easy = IntegratedGradients(tolerance=1e-9)
    model = Polynomial(image.shape)  # whose slope is linear: each part's ends give its integral
    maps = attribute(easy, TorchRuntime(model, image.shape), image, logits(0))
    assert maps.extras[0]["steps"] == 9
    torch.testing.assert_close(maps.values[0], image * (model.w1 + model.w2 * image).detach())
    assert not easy.estimate(image.shape, 1).exact


@pytest.mark.parametrize(
    "method", [Saliency(), IntegratedGradients(steps=4), Occlusion(window=4, stride=4)]
)
def test_a_pixel_that_the_model_ignores_gets_nothing(method: Method) -> None:
    image = image_for()
    model = Polynomial(image.shape)
    with torch.no_grad():
        model.w1[:, :8], model.w2[:, :8] = 0, 0
    runtime = TorchRuntime(model, image.shape)
    values = attribute(method, runtime, image, logits(0)).values[0]
    ignored = values.shape[1] * 8 // image.shape[1]
    torch.testing.assert_close(values[:, :ignored], torch.zeros_like(values[:, :ignored]))
    assert (values[:, ignored:] != 0).all()


@pytest.mark.parametrize("axes", AXES)
def test_grad_cam_is_the_layer_weighted_by_its_mean_gradient(axes: int) -> None:
    """The head is linear in pooled features, so each weight is ``w / cells``."""
    convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes](1, 4, 2, stride=2)
    mean = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[axes](1)
    head = nn.Linear(4, 3)
    model = nn.Sequential(convolution, mean, nn.Flatten(), head).double()
    image = image_for(axes)
    runtime = TorchRuntime(model, image.shape, ("0",))
    maps = attribute(GradCam(layer="0"), runtime, image, logits(2))
    features = model[0](image[None])[0].detach()
    cells = features[0].numel()
    by_hand = torch.einsum("c,c...->...", head.weight[2].detach() / cells, features)
    torch.testing.assert_close(maps.values[0, 0], by_hand)
    assert maps.affine.diagonal().tolist() == [2.0] * axes + [1.0]
    assert maps.affine[:-1, -1].tolist() == [0.5] * axes


@pytest.mark.parametrize("axes", AXES)
def test_occlusion_of_a_polynomial_is_what_its_window_holds(axes: int) -> None:
    image = image_for(axes)
    model, runtime = polynomial(image)
    maps = attribute(Occlusion(window=4, stride=4, baseline=0.5), runtime, image, logits(0))
    fall = model.w1 * (image - 0.5) + model.w2 * (image**2 - 0.25)
    by_hand = fall.detach()[0]
    for axis in range(axes):
        by_hand = torch.stack([part.sum(axis) for part in by_hand.split(4, axis)], axis)
    torch.testing.assert_close(maps.values[0, 0], by_hand)


def test_occlusion_cuts_the_last_window_off_at_the_edge() -> None:
    image = image_for()
    model, runtime = polynomial(image)
    maps = attribute(Occlusion(window=7, stride=7, baseline=0.0), runtime, image, logits(0))
    assert maps.values.shape == (1, 1, 3, 3)
    corner = (model.w1 * image + model.w2 * image**2)[0, 14:, 14:].sum()
    torch.testing.assert_close(maps.values[0, 0, 2, 2], corner.detach())


def test_occlusion_averages_over_the_windows_that_cover_a_cell() -> None:
    image = image_for(1)
    model, runtime = polynomial(image)
    maps = attribute(Occlusion(window=8, stride=4, baseline=0.0), runtime, image, logits(0))
    fall = (model.w1 * image + model.w2 * image**2).detach()[0]
    first, second = fall[0:8].sum(), fall[4:12].sum()
    torch.testing.assert_close(maps.values[0, 0, 0], first)
    torch.testing.assert_close(maps.values[0, 0, 1], (first + second) / 2)
    assert maps.affine.tolist() == [[4.0, 1.5], [0.0, 1.0]]


def test_windows_with_gaps_between_them_are_refused() -> None:
    with pytest.raises(ValueError, match="stride must be at most window"):
        Occlusion(window=4, stride=5)


def test_grad_cam_takes_the_models_default_layer_and_no_unknown_one() -> None:
    facts = ModelFacts(layers=("deep", "shallow"))
    assert GradCam().settled(facts).layer == "deep"
    assert GradCam(layer="shallow").settled(facts).layer == "shallow"
    with pytest.raises(InvalidParameter) as refused:
        GradCam(layer="other").settled(facts)
    assert refused.value.facts["valid"] == ["deep", "shallow"]
    with pytest.raises(MissingAbility):
        GradCam().settled(ModelFacts())


@pytest.mark.parametrize("method", [IntegratedGradients, Occlusion])
def test_the_models_baseline_is_used_unless_the_request_has_one(method: type[Method]) -> None:
    facts = ModelFacts(baseline=-1.5)
    assert method().settled(facts).model_dump()["baseline"] == -1.5
    assert method(baseline=0.0).settled(facts).model_dump()["baseline"] == 0.0


ASKING_FOR_ROWS = [n for n in WITHOUT_TOKENS if Ability.EXCLUSIVE not in METHODS[n].needs]
"""Methods that are served pass by pass; the others borrow the model."""


def counted(plan: Plan[Maps], counts: list[int]) -> Plan[Maps]:
    """Pass a plan on, and note the rows of each of its passes."""
    answer = None
    while True:
        try:
            asked = plan.send(answer)
        except StopIteration as stop:
            return stop.value
        asks = asked if isinstance(asked, tuple) else (asked,)
        counts += [ask.rows.count for ask in asks]
        answer = yield asked


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", ASKING_FOR_ROWS)
def test_the_estimate_is_what_the_plan_asks_for(name: str, axes: int) -> None:
    runtime, image = small_runtime(axes), image_for(axes)
    method = settled(METHODS[name](), runtime)
    cost = method.estimate(image.shape, 2)
    counts: list[int] = []
    run_alone(counted(method.plan(image, logits(0, 1)), counts), runtime)
    assert sum(counts) == cost.rows or (not cost.exact and sum(counts) < cost.rows)
    assert runtime.probed.abilities >= method.needs
    assert len(SIZES[axes]) == axes


def test_a_misspelt_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match="step"):
        IntegratedGradients(step=3)  # type: ignore[call-arg]


class Signs(nn.Module):
    """f(x) = w x, with every sign of weight beside every sign of pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[-1.0, 2.0], [3.0, -1.0]], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, 0] * self.w).flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize(
    "method",
    [
        Saliency(),
        SmoothGrad(samples=4),
        InputXGradient(),
        IntegratedGradients(steps=4, baseline=0.0),
        Occlusion(window=1, stride=1, baseline=0.0),
    ],
    ids=lambda each: each.name,
)
def test_the_sign_means_what_the_method_says_of_it(method: Method) -> None:
    """Evidence is what hiding a pixel costs; sensitivity, which way raising it moves the score."""
    model, image = Signs(), torch.tensor([[[-1.0, 1.0], [-2.0, 3.0]]], dtype=torch.float64)
    values = attribute(method, TorchRuntime(model, image.shape), image, logits(0)).values[0, 0]
    with torch.no_grad():
        for place in np.ndindex(2, 2):
            changed = image.clone()
            changed[0][place] = 0.0 if method.sense == "evidence" else image[0][place] + 0.1
            change = (model(changed[None]) - model(image[None])).item()
            gain = -change if method.sense == "evidence" else change
            assert np.sign(values[place].item()) == np.sign(gain)
