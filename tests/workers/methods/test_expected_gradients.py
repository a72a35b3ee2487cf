"""Expected gradients: the sum over references by hand, closed forms, completeness."""

import itertools

import pytest
import torch
from torch import Tensor

from tests.support.engine import (
    Polynomial,
    attribute,
    image_for,
    logits,
    small_net,
    small_runtime,
    through,
)
from workers.methods.expected_gradients import ExpectedGradients
from workers.passes import Step
from workers.rows import INPUT, Between
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

AXES = [1, 2, 3]
KINDS = ["constant", "noisy"]


def rows_of(method: ExpectedGradients, image: Tensor) -> tuple[Between, Between]:
    """Return the rows of references and of points that the method asks for."""
    plan = method.plan(image, logits(0))
    _, starts = plan.send(None)
    points = plan.send((Step(0, 1), Step(0, starts.rows.count)))
    return starts.rows, points.rows


def written(rows: Between, image: Tensor) -> Tensor:
    out = torch.zeros(rows.count, *image.shape, dtype=image.dtype)
    rows.fill({INPUT: out}, 0, rows.count)
    return out


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_mean_of_way_times_gradient(kind: str, axes: int) -> None:
    image, method = image_for(axes, 2), ExpectedGradients(samples=12, references=kind, seed=4)
    maps = attribute(method, small_runtime(axes, 2), image, logits(1, 4), chunk=5)
    net = small_net(axes, 2)
    references, points = (written(rows, image) for rows in rows_of(method, image))
    for values, target in zip(maps.values, (1, 4), strict=True):
        total = torch.zeros_like(image)
        for reference, point in zip(references.repeat_interleave(2, 0), points, strict=True):
            leaf = point.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(net(leaf[None])[0, target], leaf)
            total += (image - reference) * gradient
        torch.testing.assert_close(values, total / 24)


@pytest.mark.parametrize("kind", KINDS)
def test_each_point_lies_on_the_way_of_its_own_reference(kind: str) -> None:
    """Two points to a reference, about the middle; in all they leave no large gap."""
    image = image_for()
    starts, ways = rows_of(ExpectedGradients(samples=8, references=kind), image)
    references, points = written(starts, image).repeat_interleave(2, 0), written(ways, image)
    shares = ((points - references) / (image - references)).flatten(1)
    assert (shares.amax(1) - shares.amin(1)).max().item() < 1e-6
    pairs = shares[:, 0].reshape(8, 2).sum(1)
    torch.testing.assert_close(pairs, torch.ones_like(pairs))
    ends = [0.0, *sorted(shares[:, 0].tolist()), 1.0]
    assert max(b - a for a, b in itertools.pairwise(ends)) < 3 / 16


def test_constant_references_are_every_gray_of_the_image() -> None:
    image = image_for()
    references = written(rows_of(ExpectedGradients(samples=10), image)[0], image).flatten(1)
    assert torch.equal(references.amin(1), references.amax(1))
    low, span = image.min().item(), (image.max() - image.min()).item()
    grays = sorted(references[:, 0].tolist())
    assert grays == pytest.approx([low + (k + 0.5) / 10 * span for k in range(10)])


def test_of_a_quadratic_it_approaches_the_expectation() -> None:
    """It is w1 (x - E r) + w2 (x^2 - E r^2), for constants r even on the image's range."""
    image = image_for()
    model = Polynomial(image.shape)
    runtime = TorchRuntime(model, image.shape)
    maps = attribute(ExpectedGradients(samples=200), runtime, image, logits(0))
    low, high = image.min(), image.max()
    mean, square = (low + high) / 2, (low**2 + low * high + high**2) / 3
    by_hand = (model.w1 * (image - mean) + model.w2 * (image**2 - square)).detach()
    scale = by_hand.abs().max().item()
    assert (maps.values[0] - by_hand).abs().max().item() < 1e-4 * scale


@pytest.mark.parametrize("kind", KINDS)
def test_it_adds_up_to_the_score_less_the_mean_score_of_the_references(kind: str) -> None:
    image, method = image_for(), ExpectedGradients(samples=64, references=kind)
    maps = attribute(method, small_runtime(), image, logits(2, 3))
    with torch.no_grad():
        base = small_net()(written(rows_of(method, image)[0], image)).mean(0)
        score = small_net()(image[None])[0]
    for values, extras, target in zip(maps.values, maps.extras, (2, 3), strict=True):
        change = (score - base)[target].item()
        assert extras["score_change"] == pytest.approx(change)
        assert extras["sum"] == pytest.approx(values.sum().item())
        assert extras["residual"] == pytest.approx(extras["sum"] - change)
        assert abs(extras["residual"]) < 0.05 * abs(change)


def test_equal_seeds_give_equal_bits_merged_or_alone() -> None:
    runtime, image, method = small_runtime(), image_for(), ExpectedGradients(samples=10, seed=3)
    plans = [method.plan(each, logits(1)) for each in (image, image_for(seed=2))]
    merged, _ = through(Scheduler(), runtime, *plans)
    alone = attribute(method, runtime, image, logits(1), chunk=1)
    torch.testing.assert_close(merged.values, alone.values, rtol=0, atol=1e-12)
    other = attribute(ExpectedGradients(samples=10, seed=4), runtime, image, logits(1))
    assert not torch.allclose(other.values, alone.values)
