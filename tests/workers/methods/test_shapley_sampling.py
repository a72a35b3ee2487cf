"""Shapley sampling: captum on the same orders, Shapley values by their definition."""

from itertools import permutations

import pytest
import torch
from captum.attr import ShapleyValues, ShapleyValueSampling
from torch import Tensor

from tests.support.coalitions import BASELINE, per_segment, shapley_values
from tests.support.engine import (
    attribute,
    image_for,
    logits,
    small_net,
    small_runtime,
    stopped,
)
from workers.methods.base import Maps
from workers.methods.shapley_sampling import ShapleySampling
from workers.methods.superpixels import segmented
from workers.passes import TimeUp

AXES = [1, 2, 3]


def maps_of(method: ShapleySampling, image: Tensor, axes: int = 2) -> Maps:
    return attribute(method, small_runtime(axes), image, logits(1, 3))


@pytest.mark.parametrize("axes", AXES)
def test_the_map_equals_captums_on_the_same_orders(axes: int) -> None:
    image = image_for(axes)
    labels = segmented(image, 9)
    method = ShapleySampling(segments=9, orders=6, baseline=BASELINE, seed=4)
    orders = method.ranks(int(labels.max()) + 1).argsort(1)
    captum = ShapleyValueSampling(small_net(axes))
    captum.permutation_generator = lambda *_: iter(orders.tolist())
    expected = captum.attribute(
        image[None], BASELINE, 3, feature_mask=labels[None, None], n_samples=6
    )[0]
    sizes = torch.bincount(labels.flatten())[labels]
    ours = maps_of(method, image, axes).values[1].float()  # captum sums in float32
    torch.testing.assert_close(ours, expected / sizes, rtol=1e-5, atol=1e-6)


def test_all_orders_give_the_values_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_for()
    labels = segmented(image, 4)
    ranks = torch.tensor([*permutations(range(4))])
    monkeypatch.setattr(ShapleySampling, "ranks", lambda *_: ranks)
    maps = maps_of(ShapleySampling(segments=4, orders=24, baseline=BASELINE), image)
    truth = shapley_values(small_net(), image, 4)
    torch.testing.assert_close(per_segment(maps, labels), truth[[1, 3]])
    captum = ShapleyValues(small_net()).attribute(
        image[None], BASELINE, 1, feature_mask=labels[None, None]
    )
    expected = captum[0] / torch.bincount(labels.flatten())[labels]
    torch.testing.assert_close(maps.values[0].float(), expected, rtol=1e-5, atol=1e-6)


def test_reversed_orders_are_worth_more_than_as_many_others() -> None:
    image, runtime = image_for(), small_runtime()
    labels, truth = segmented(image, 8), shapley_values(small_net(), image, 8)[1]

    def error(kind: type[ShapleySampling]) -> float:
        methods = [kind(segments=8, orders=8, baseline=BASELINE, seed=s) for s in range(8)]
        values = [per_segment(attribute(m, runtime, image, logits(1)), labels)[0] for m in methods]
        return sum((each - truth).square().sum().item() for each in values)

    assert error(ShapleySampling) < 0.8 * error(Independent)


class Independent(ShapleySampling):
    """As many orders, each drawn alone."""

    def ranks(self, segments: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(self.orders, segments, generator=generator).argsort(1)


@pytest.mark.parametrize("axes", AXES)
def test_the_sum_is_the_change_in_score_for_any_number_of_orders(axes: int) -> None:
    maps = maps_of(ShapleySampling(segments=12, orders=2, baseline=BASELINE), image_for(axes), axes)
    for values, extras in zip(maps.values, maps.extras, strict=True):
        assert values.sum().item() == pytest.approx(extras["score_change"], rel=1e-9)
        assert extras["score_change"] == extras["score"] - extras["baseline_score"]
        assert abs(extras["score_change"]) > 1e-3


def test_ranks_are_orders_followed_by_their_reverse() -> None:
    ranks = ShapleySampling(orders=10).ranks(7)
    assert torch.equal(ranks.sort(1).values, torch.arange(7).expand(10, 7))
    assert torch.equal(ranks[::2], 6 - ranks[1::2])


def test_when_time_is_up_orders_count_with_their_reverses() -> None:
    image, method = image_for(), ShapleySampling(segments=9, orders=8, baseline=BASELINE, seed=4)
    steps = int(segmented(image, 9).max())
    plan = method.plan(image, logits(1, 3))
    part = stopped(plan, small_runtime(), 2 + 5 * steps)
    assert part.partial
    fewer = maps_of(method.model_copy(update={"orders": 4}), image)
    torch.testing.assert_close(part.values, fewer.values)
    assert [each["orders"] for each in part.extras] == [4, 4]
    with pytest.raises(TimeUp):
        stopped(method.plan(image, logits(1, 3)), small_runtime(), 1 + 4 * steps)
