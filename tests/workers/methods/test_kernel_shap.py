"""Kernel SHAP: Shapley values by their definition, captum in the limit, fits by other means."""

import math

import numpy as np
import pytest
import torch
from captum.attr import KernelShap as CaptumKernelShap
from torch import Tensor

from tests.support.coalitions import BASELINE, per_segment, scores_of, shapley_values
from tests.support.engine import (
    Polynomial,
    attribute,
    image_for,
    logits,
    small_net,
    small_runtime,
    stopped,
)
from tests.support.regression import Regression
from workers.methods.base import Maps
from workers.methods.kernel_shap import ENDS, Coalitions, KernelShap, fitted, told_apart
from workers.methods.superpixels import segmented
from workers.passes import TimeUp
from workers.runtimes.torch import TorchRuntime


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("segments", [2, 6, 7])
def test_with_every_coalition_the_values_are_shapleys(axes: int, segments: int) -> None:
    image = image_for(axes, 2)
    method = KernelShap(segments=segments, samples=256, baseline=BASELINE)
    maps = attribute(method, small_runtime(axes, 2), image, logits(0, 3))
    truth = shapley_values(small_net(axes, 2), image, segments)[[0, 3]]
    torch.testing.assert_close(per_segment(maps, segmented(image, segments)), truth)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_captums_values_are_ours_in_the_limit(axes: int) -> None:
    image = image_for(axes)
    labels = segmented(image, 6)
    maps = attribute(
        KernelShap(segments=6, samples=64, baseline=BASELINE), small_runtime(axes), image, logits(2)
    )
    torch.manual_seed(0)
    captum = CaptumKernelShap(small_net(axes))
    captum.interpretable_model = Regression()
    expected = captum.attribute(
        image[None],
        BASELINE,
        2,
        feature_mask=labels[None, None],
        n_samples=1500,
        perturbations_per_eval=50,
        return_input_shape=False,
    )
    ours = per_segment(maps, labels)
    assert (ours - expected).norm() <= 0.05 * ours.norm()


def test_few_coalitions_come_near_and_more_come_nearer() -> None:
    image, runtime = image_for(), small_runtime()
    truth = shapley_values(small_net(), image, 8)[2]
    labels = segmented(image, 8)

    def error(samples: int) -> float:
        methods = [
            KernelShap(segments=8, samples=samples, baseline=BASELINE, seed=seed)
            for seed in range(6)
        ]
        values = [per_segment(attribute(m, runtime, image, logits(2)), labels)[0] for m in methods]
        return sum(float((each - truth).norm() / truth.norm()) for each in values) / 6

    few, many = error(24), error(160)
    assert many < few / 2
    assert few < 0.3


@pytest.mark.parametrize("samples", [8, 18, 60, 400])
def test_the_sum_is_the_change_in_score_to_the_last_digit(samples: int) -> None:
    image = image_for()
    maps = attribute(
        KernelShap(segments=9, samples=samples, baseline=BASELINE),
        small_runtime(),
        image,
        logits(0),
    )
    (extras,) = maps.extras
    labels = segmented(image, 9)
    ends = torch.tensor([[1] * 9, [0] * 9]).bool()
    score, baseline_score = scores_of(small_net(), image, labels, ends)[:, 0].tolist()
    assert extras["score_change"] == pytest.approx(score - baseline_score, rel=1e-12)
    assert abs(extras["residual"]) <= 1e-12 * abs(extras["score_change"])
    assert maps.values.sum().item() == pytest.approx(extras["score_change"], rel=1e-12)


def test_a_fit_solves_the_papers_problem() -> None:
    """Lagrange's equations of the weighted problem with its constraint, solved by numpy."""
    coalitions = Coalitions(7, 40, 2)
    weights = coalitions.weights
    scores = torch.randn(len(coalitions.shown), 3, dtype=torch.float64)
    z = coalitions.shown[ENDS:].double().numpy()
    w = np.diag(weights.numpy())
    equations = np.block([[z.T @ w @ z, np.ones((7, 1))], [np.ones((1, 7)), np.zeros((1, 1))]])
    gain = (scores[ENDS:] - scores[1]).numpy()
    right = np.vstack([z.T @ w @ gain, (scores[0] - scores[1]).numpy()[None]])
    expected = np.linalg.solve(equations, right)[:7].T
    ours = fitted(coalitions.shown[ENDS:], weights, scores)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9)


def test_whole_sizes_have_the_papers_weights_and_the_rest_is_drawn_in_pairs() -> None:
    coalitions = Coalitions(6, 40, 1)
    shown, weights = coalitions.shown, coalitions.weights
    assert shown[0].all()
    assert not shown[1].any()
    assert torch.equal(shown[2::2], ~shown[3::2])
    drawn, whole = shown[ENDS:].split([28, 12])
    assert set(drawn.sum(1).tolist()) == {2, 3, 4}
    assert len(weights[:28].unique()) == 1
    assert whole.sum(1).tolist() == [1, 5] * 6
    assert len(whole.unique(dim=0)) == 12
    for size, weight in zip(whole.sum(1).tolist(), weights[28:].tolist(), strict=True):
        assert weight == pytest.approx(5 / (math.comb(6, size) * size * (6 - size)))
    assert weights.sum().item() == pytest.approx(sum(5 / (s * (6 - s)) for s in range(1, 6)))


def part_and_whole(method: KernelShap, rows: int) -> tuple[Maps, Maps, Tensor]:
    """Return the map of a linear score after some rows, the whole one, and the segments."""
    image = image_for()
    model = Polynomial(image.shape)
    with torch.no_grad():
        model.w2.zero_()
    runtime = TorchRuntime(model, image.shape)
    whole = attribute(method, runtime, image, logits(0))
    part = stopped(method.plan(image, logits(0)), runtime, rows, chunk=5)
    return part, whole, segmented(image, method.segments)


def test_when_time_is_up_every_segment_is_known() -> None:
    """Of a linear score any coalitions that tell all segments apart give the exact values."""
    method = KernelShap(segments=20, samples=100, baseline=BASELINE, seed=3)
    part, whole, labels = part_and_whole(method, ENDS + 61)
    assert part.partial
    torch.testing.assert_close(per_segment(part, labels), per_segment(whole, labels))
    assert part.extras[0]["samples"] == 60  # a coalition without its complement is left out
    assert whole.extras[0]["samples"] == 100


@pytest.mark.parametrize(
    ("samples", "rows"),
    [(100, 59), (80, 59), (36, 35)],
    ids=["a share", "some to a segment", "not all segments told apart"],
)
def test_of_too_few_coalitions_there_is_no_map(samples: int, rows: int) -> None:
    method = KernelShap(segments=20, samples=samples, baseline=BASELINE, seed=3)
    with pytest.raises(TimeUp):
        part_and_whole(method, ENDS + rows)


def test_segments_and_values_are_told_apart_by_a_rank() -> None:
    pairs = torch.tensor([[1, 0, 0, 1], [1, 0, 1, 0]]).bool()
    assert not told_apart(torch.cat([pairs, ~pairs]))
    assert not told_apart(torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]).bool())
    assert told_apart(torch.cat([pairs, torch.tensor([[1, 1, 0, 0]]).bool()]))


def test_no_coalition_is_tried_twice_where_all_fit_in() -> None:
    shown = Coalitions(8, 4096, 0).shown
    assert len(shown) == len(shown.unique(dim=0)) == 1 << 8


def test_segments_that_no_coalition_tells_apart_get_equal_shares() -> None:
    shown = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).bool()
    scores = torch.tensor([[5.0], [1.0], [4.0], [2.0]]).double()
    values = fitted(shown, torch.ones(2).double(), scores)
    torch.testing.assert_close(values, torch.tensor([[1.5, 1.5, 0.5, 0.5]]).double())
