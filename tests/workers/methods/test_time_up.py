"""What a method gives when its time is up: a map of what it has, marked so, or none."""

import itertools
from collections.abc import Mapping
from typing import Any, Final

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.engine import (
    WITHOUT_TOKENS,
    Polynomial,
    attribute,
    image_for,
    logits,
    settled,
    small_runtime,
    stopped,
)
from workers.formats.record import EFFORT
from workers.methods.base import METHODS, Maps, Method, spread_order
from workers.methods.deep_lift import DeepLift
from workers.methods.deep_lift_shap import DeepLiftShap
from workers.methods.expected_gradients import ExpectedGradients
from workers.methods.feature_ablation import FeatureAblation
from workers.methods.gradient_shap import GradientShap
from workers.methods.integrated_gradients import IntegratedGradients
from workers.methods.occlusion import Occlusion
from workers.methods.superpixels import segmented
from workers.passes import TimeUp
from workers.rows import INPUT
from workers.runtimes.torch import TorchRuntime

RUNTIME: Final = small_runtime()

FINE: Final[Mapping[str, dict[str, Any]]] = {
    "occlusion": {"window": 4, "stride": 2},
    "shapley_sampling": {"segments": 20},
}
"""Parameters of methods that would have little to do on so small an image, or too much."""

BUDGETED: Final = [
    IntegratedGradients(tolerance=1e-4, max_steps=64),
    Occlusion(window=4, stride=2, refine=0.5),
]
"""Methods that take another way with another parameter."""

LIKE: Final[Mapping[str, float]] = {"score_cam": 0.3, "ablation_cam": 0.6}
"""Least correlation where it is low: of eight channels with weights drawn at random, half miss."""

FEW: Final = 2
"""Rows of the costliest method of which half are nothing: of one pass or two."""


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


def smooth() -> Tensor:
    """Return an image of which places that are near each other are alike."""
    coarse = image_for()[None, :, ::4, ::4]
    return functional.interpolate(coarse, (20, 16), mode="bicubic")[0]


def stopped_midway(method: Method) -> tuple[Maps, Maps]:
    """Return the map after four fifths of a method's rows, and the whole one."""
    image, targets = smooth(), logits(0, 2)
    RUNTIME.served.batches.clear()
    whole = attribute(method, RUNTIME, image, targets)
    cost = method.estimate(image.shape, 2)
    rows = cost.rows if cost.exact else sum(RUNTIME.served.batches)
    plan = method.plan(image, targets)
    return stopped(plan, RUNTIME, rows * 4 // 5, chunk=3), whole


def of(name: str) -> Method:
    return settled(METHODS[name](**FINE.get(name, {})), RUNTIME)


@pytest.mark.parametrize(
    "method",
    [of(name) for name in WITHOUT_TOKENS if METHODS[name].partial_map] + BUDGETED,
    ids=lambda each: each.name,
)
def test_midway_there_is_a_map_like_the_whole_one_and_marked(method: Method) -> None:
    part, whole = stopped_midway(method)
    assert part.partial
    assert not whole.partial
    assert part.values.shape == whole.values.shape
    for values, full in zip(part.values, whole.values, strict=True):
        assert correlation(values, full) > LIKE.get(method.name, 0.75)
    # and what was done is told, with less of it than in the whole
    assert len(part.extras) == len(whole.extras) == 2
    for done, everything in zip(part.extras, whole.extras, strict=True):
        assert done.keys() == everything.keys()
        (unit,) = done.keys() & EFFORT
        assert 0 < done[unit] < everything[unit]


@pytest.mark.parametrize("name", [n for n in WITHOUT_TOKENS if not METHODS[n].partial_map])
def test_the_others_have_none(name: str) -> None:
    with pytest.raises(TimeUp):
        stopped_midway(of(name))


@pytest.mark.parametrize("name", list(METHODS))
def test_before_the_first_row_nobody_has_a_map(name: str) -> None:
    method = METHODS[name]
    if name in WITHOUT_TOKENS:
        with pytest.raises(TimeUp):
            stopped(of(name).plan(image_for(), logits(0)), RUNTIME, 0)
    else:  # one pass through a transformer is all
        assert method().estimate((1, 16, 16), 1).rows <= FEW
        assert not method.partial_map


@pytest.mark.parametrize("count", [1, 2, 7, 32, 100])
def test_the_first_few_of_an_order_are_spread_among_all(count: int) -> None:
    order = spread_order(count)
    assert sorted(order) == list(range(count))
    for few in range(1, count + 1):
        places = [-0.5, *sorted(order[:few]), count - 0.5]
        gaps = [b - a for a, b in itertools.pairwise(places)]
        assert max(gaps) <= 2 * count / few + 1


def test_nothing_is_spread_out_of_nothing() -> None:
    assert spread_order(0) == []


def quadratic() -> tuple[TorchRuntime, Tensor]:
    """Return a model of which integrated gradients are exact with any pair of points."""
    image = image_for()
    return TorchRuntime(Polynomial(image.shape), image.shape), image


@pytest.mark.parametrize(
    ("steps", "done", "counted"),
    [(32, 8, 8), (32, 9, 8), (32, 23, 22), (31, 9, 9), (31, 16, 15), (15, 12, 11)],
)
def test_pairs_of_points_on_the_path_are_exact_for_a_quadratic_score(
    steps: int, done: int, counted: int
) -> None:
    """One of a pair is left out without the other; of an odd number the first is the middle."""
    runtime, image = quadratic()
    method = IntegratedGradients(steps=steps, baseline=0.25)
    part = stopped(method.plan(image, logits(0)), runtime, 2 + done, chunk=3)
    torch.testing.assert_close(
        part.values, attribute(method, runtime, image, logits(0)).values, rtol=1e-9, atol=1e-9
    )
    assert part.partial
    assert part.extras[0]["steps"] == counted
    assert part.extras[0]["residual"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("steps", "done"), [(32, 7), (31, 8), (6, 3), (5, 4)])
def test_less_than_eight_points_on_the_path_are_no_map(steps: int, done: int) -> None:
    runtime, image = quadratic()
    plan = IntegratedGradients(steps=steps, baseline=0.0).plan(image, logits(0))
    with pytest.raises(TimeUp):
        stopped(plan, runtime, 2 + done)


class HalfCurved(nn.Module):
    """A score that is linear in the upper rows of an image and steep in the lower ones."""

    def forward(self, x: Tensor) -> Tensor:
        upper, lower = x.flatten(1).tensor_split(2, 1)
        return (2 * upper.sum(1) + torch.exp(3 * lower).sum(1))[:, None]


@pytest.mark.parametrize("rows", [9, 10, 11, 14, 23])
def test_parts_of_the_path_count_once_all_of_their_points_are_in(rows: int) -> None:
    """Weights of points that do not add up to one would show where the score is linear."""
    image = image_for()
    runtime = TorchRuntime(HalfCurved().double(), image.shape)
    method = IntegratedGradients(tolerance=1e-6, max_steps=64, baseline=0.25)
    part = stopped(method.plan(image, logits(0)), runtime, rows, chunk=1)
    assert part.partial
    assert rows - 4 <= part.extras[0]["steps"] <= rows
    half = image.shape[1] // 2
    torch.testing.assert_close(part.values[0, :, :half], 2 * (image[:, :half] - 0.25))
    whole = attribute(method, runtime, image, logits(0))
    assert correlation(part.values, whole.values) > 0.99


def test_before_the_ends_of_all_parts_are_known_there_is_no_map() -> None:
    method = IntegratedGradients(tolerance=1e-6, baseline=0.0)
    with pytest.raises(TimeUp):
        stopped(method.plan(image_for(), logits(1)), RUNTIME, 8)


@pytest.mark.parametrize("references", ["constant", "noisy"])
def test_expected_gradients_are_the_mean_over_the_points_done(references: str) -> None:
    """Of a linear score a point gives its way times the weights, wherever it lies."""
    runtime, image = quadratic()
    with torch.no_grad():
        runtime.model.w2.zero_()
    method = ExpectedGradients(samples=16, references=references)
    plan = method.plan(image, logits(0))
    part = stopped(plan, runtime, 17 + 19)
    twice = method.plan(image, logits(0))
    _, starts = twice.send(None)
    written = torch.zeros(16, *image.shape, dtype=image.dtype)
    starts.rows.fill({INPUT: written}, 0, 16)
    expected = ((image - written[:9]) * runtime.model.w1).mean(0)
    torch.testing.assert_close(part.values[0], expected.detach())
    assert part.extras[0]["points"] == 18  # one without the other of its pair is left out
    assert part.extras[0]["residual"] == pytest.approx(
        part.values.sum().item() - part.extras[0]["score_change"]
    )


def test_of_too_few_points_expected_gradients_are_no_map() -> None:
    runtime, image = quadratic()
    with pytest.raises(TimeUp):
        stopped(ExpectedGradients(samples=16).plan(image, logits(0)), runtime, 17 + 15)


def test_the_first_references_are_spread_between_darkest_and_brightest() -> None:
    image = image_for()
    _, starts = ExpectedGradients(samples=16).plan(image, logits(0)).send(None)
    written = torch.zeros(4, *image.shape, dtype=image.dtype)
    starts.rows.fill({INPUT: written}, 0, 4)
    shares = (written.flatten(1)[:, 0] - image.min()) / (image.max() - image.min())
    assert shares.mean().item() == pytest.approx(0.5, abs=0.1)
    assert shares.max() - shares.min() > 0.5


def test_gradient_shap_gives_what_fewer_samples_would() -> None:
    image, targets = image_for(), logits(0, 2)
    method, fewer = GradientShap(samples=64), GradientShap(samples=16)
    rows = 1 + method.grays + 2 * 16
    part = stopped(method.plan(image, targets), RUNTIME, rows)
    assert part.partial
    assert torch.equal(part.values, attribute(fewer, RUNTIME, image, targets).values)
    assert [each["gradient_rows"] for each in part.extras] == [16, 16]
    with pytest.raises(TimeUp):
        stopped(method.plan(image, targets), RUNTIME, rows - 4)


def test_deep_lift_shap_is_the_mean_over_the_references_done() -> None:
    image = image_for()
    part = stopped(DeepLiftShap(samples=8).plan(image, logits(1)), RUNTIME, 1 + 8 + 8)
    low, span = image.min(), image.max() - image.min()
    each = [
        attribute(
            DeepLift(baseline=(low + span * (k + 0.5) / 8).item()),
            RUNTIME,
            image,
            logits(1),
        ).values
        for k in spread_order(8)[:4]
    ]
    torch.testing.assert_close(part.values, torch.stack(each).mean(0))


def test_segments_that_were_not_hidden_are_like_those_around_them() -> None:
    image = smooth()
    method = FeatureAblation(segments=36, baseline=0.0)
    labels = segmented(image, 36)
    count = int(labels.max()) + 1
    whole = attribute(method, RUNTIME, image, logits(0)).values[0, 0]
    tried = count // 2 + 1
    part = stopped(method.plan(image, logits(0)), RUNTIME, 1 + tried)
    assert part.extras[0]["tried"] == tried
    values = part.values[0, 0]
    hidden = spread_order(count)[:tried]
    known = torch.isin(labels, torch.tensor(hidden))
    assert torch.equal(values[known], whole[known])
    places = torch.stack(torch.meshgrid(torch.arange(20.0), torch.arange(16.0), indexing="ij"), 2)
    centers = torch.stack([places[labels == k].mean(0) for k in range(count)]).double()
    for other in set(range(count)) - set(hidden):
        squares = {k: float((centers[k] - centers[other]).square().sum()) for k in hidden}
        near = sorted(hidden, key=squares.__getitem__)[:4]
        shares = torch.tensor([1 / (1 + squares[k]) for k in near]).double()
        falls = torch.stack([whole[labels == k][0] for k in near])
        expected = (shares / shares.sum()) @ falls
        torch.testing.assert_close(values[labels == other][0], expected, rtol=1e-5, atol=1e-8)
    with pytest.raises(TimeUp):
        stopped(method.plan(image, logits(0)), RUNTIME, 1 + (count - 1) // 2 - 1)


@pytest.mark.parametrize("name", ["score_cam", "ablation_cam"])
def test_channels_that_were_not_tried_are_left_out_as_by_the_cap(name: str) -> None:
    image, targets = image_for(), logits(0, 2)
    method, fewer = (settled(METHODS[name](channels=n), RUNTIME) for n in (256, 3))
    first = fewer.estimate(image.shape, 2).rows - 3
    part = stopped(method.plan(image, targets), RUNTIME, first + 3)
    expected = attribute(fewer, RUNTIME, image, targets)
    torch.testing.assert_close(part.values, expected.values)
    assert part.extras == expected.extras
    assert part.partial
    with pytest.raises(TimeUp):
        stopped(method.plan(image, targets), RUNTIME, first + 1)
