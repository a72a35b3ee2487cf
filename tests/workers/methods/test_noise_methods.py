"""Input x gradient, SmoothGrad and VarGrad: captum on the same noise, closed forms, time up."""

import pytest
import torch
from captum.attr import InputXGradient as CaptumInputXGradient
from captum.attr import NoiseTunnel
from captum.attr import Saliency as CaptumSaliency
from torch import Tensor

from tests.support.engine import (
    Polynomial,
    attribute,
    image_for,
    logits,
    small_net,
    small_runtime,
    stopped,
    through,
)
from workers.methods.base import Method
from workers.methods.input_x_gradient import InputXGradient
from workers.methods.noise import NoiseMethod
from workers.methods.smooth_grad import SmoothGrad
from workers.methods.var_grad import VarGrad
from workers.passes import TimeUp
from workers.rows import INPUT
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

AXES = [1, 2, 3]
SAMPLES = 8


def near(ours: Tensor, expected: Tensor) -> None:
    span = (expected.max() - expected.min()).item()
    assert span > 0
    assert (ours - expected).abs().max().item() <= 1e-6 * span


def noise_of(method: NoiseMethod, image: Tensor, *, antithetic: bool) -> Tensor:
    rows = method.noisy(image, antithetic=antithetic)
    batch = torch.zeros(rows.count, *image.shape, dtype=image.dtype)
    rows.fill({INPUT: batch}, 0, rows.count)
    return batch - image


@pytest.mark.parametrize("axes", AXES)
def test_input_x_gradient_equals_captum(axes: int) -> None:
    image = image_for(axes, 2)
    maps = attribute(InputXGradient(), small_runtime(axes, 2), image, logits(1, 4))
    captum = CaptumInputXGradient(small_net(axes, 2))
    for values, target in zip(maps.values, (1, 4), strict=True):
        near(values, captum.attribute(image[None].requires_grad_(), target=target)[0])


def test_input_x_gradient_of_a_linear_model_adds_up_to_the_score() -> None:
    image = image_for()
    model = Polynomial(image.shape)
    with torch.no_grad():
        model.w2.zero_()
    maps = attribute(InputXGradient(), TorchRuntime(model, image.shape), image, logits(0))
    torch.testing.assert_close(maps.values.sum(), model(image[None])[0, 0].detach())


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(
    ("method", "kind", "scale"),
    [
        (SmoothGrad(samples=SAMPLES, seed=5), "smoothgrad", 1.0),
        (VarGrad(samples=SAMPLES, seed=5), "vargrad", SAMPLES / (SAMPLES - 1)),
    ],
    ids=["smooth_grad", "var_grad"],
)
def test_noise_methods_equal_captum_on_the_same_noise(
    method: NoiseMethod, kind: str, scale: float, axes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """captum divides the variance by n, the unbiased one is n / (n - 1) times that."""
    image = image_for(axes)
    noise = noise_of(method, image, antithetic=kind == "smoothgrad")
    maps = attribute(method, small_runtime(axes), image, logits(0, 3), chunk=3)
    monkeypatch.setattr(torch, "normal", lambda *_: noise)
    tunnel = NoiseTunnel(CaptumSaliency(small_net(axes)))
    for values, target in zip(maps.values, (0, 3), strict=True):
        expected = tunnel.attribute(
            image[None].requires_grad_(), nt_type=kind, nt_samples=SAMPLES, target=target, abs=False
        )[0]
        near(values, scale * expected.detach())


@pytest.mark.parametrize("axes", AXES)
def test_smooth_grad_of_a_quadratic_is_its_gradient_exactly(axes: int) -> None:
    """Opposite noise cancels what is linear in it."""
    image = image_for(axes)
    model = Polynomial(image.shape)
    runtime = TorchRuntime(model, image.shape)
    maps = attribute(SmoothGrad(samples=2, noise=0.5), runtime, image, logits(0))
    torch.testing.assert_close(maps.values[0], model.w1 + 2 * model.w2 * image)


def test_var_grad_of_a_quadratic_is_the_variance_of_its_noise() -> None:
    """The gradient is w1 + 2 w2 x, so its variance is (2 w2 sigma)^2."""
    image = image_for()
    model = Polynomial(image.shape)
    method = VarGrad(samples=2000, noise=0.1)
    maps = attribute(method, TorchRuntime(model, image.shape), image, logits(0))
    sigma = 0.1 * (image.max() - image.min()).item()
    assert maps.extras[0]["sigma"] == pytest.approx(sigma)
    ratio = maps.values[0] / (2 * model.w2.detach() * sigma) ** 2
    spread = (2 / 2000) ** 0.5
    assert (ratio - 1).abs().max().item() < 5 * spread
    assert abs(ratio.mean().item() - 1) < 5 * spread / ratio.numel() ** 0.5


@pytest.mark.parametrize("method", [SmoothGrad, VarGrad])
def test_equal_seeds_give_equal_bits_and_others_do_not(method: type[NoiseMethod]) -> None:
    runtime, image = small_runtime(), image_for()
    first, again, other = (
        attribute(method(samples=6, seed=seed), runtime, image, logits(1)).values
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("method", [SmoothGrad(samples=16), VarGrad(samples=16), InputXGradient()])
def test_merged_with_another_job_equals_alone(method: Method) -> None:
    runtime, image, other = small_runtime(), image_for(), image_for(seed=2)
    scheduler = Scheduler()
    alone = attribute(method, runtime, image, logits(0, 2), chunk=1)
    (merged, _) = through(
        scheduler, runtime, method.plan(image, logits(0, 2)), method.plan(other, logits(1))
    )
    torch.testing.assert_close(merged.values, alone.values, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "rows", "done"),
    [(SmoothGrad(samples=8), 4, 4), (SmoothGrad(samples=8), 7, 6), (VarGrad(samples=8), 5, 5)],
)
def test_when_time_is_up_what_was_done_is_returned_and_marked(
    method: NoiseMethod, rows: int, done: int
) -> None:
    """It equals one with as many samples; one of a pair alone would not cancel."""
    image = image_for()
    model = Polynomial(image.shape)
    maps = stopped(method.plan(image, logits(0)), TorchRuntime(model, image.shape), rows, 3)
    assert maps.partial
    assert maps.extras[0]["samples"] == done
    few = method.model_copy(update={"samples": done})
    whole = attribute(few, TorchRuntime(model, image.shape), image, logits(0))
    assert not whole.partial
    torch.testing.assert_close(maps.values, whole.values)


@pytest.mark.parametrize(
    ("method", "rows"), [(SmoothGrad(samples=14), 7), (VarGrad(samples=14), 6)]
)
def test_of_less_than_half_of_the_samples_there_is_no_map(method: NoiseMethod, rows: int) -> None:
    """Of seven samples in pairs, six count."""
    with pytest.raises(TimeUp):
        stopped(method.plan(image_for(), logits(0)), small_runtime(), rows)


@pytest.mark.parametrize("bad", [{"samples": 7}, {"samples": 0}, {"noise": 0.0}, {"seed": -1}])
@pytest.mark.parametrize("method", [SmoothGrad, VarGrad])
def test_parameters_out_of_range_are_refused(method: type[NoiseMethod], bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        method(**bad)
