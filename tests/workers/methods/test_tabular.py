"""Numbers beside the image: shares as captum computes them of both, maps as with them settled."""

from itertools import combinations
from math import comb
from typing import Any

import pytest
import torch
from captum.attr import FeatureAblation as CaptumFeatureAblation
from captum.attr import InputXGradient as CaptumInputXGradient
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from captum.attr import LayerGradCam
from torch import Tensor

from service.errors.models import UnservablePass
from tests.support.engine import (
    LAYER,
    WITHOUT_TOKENS,
    attribute,
    logits,
    run_alone,
    settled,
    stopped,
)
from tests.support.fused import (
    BASELINE,
    VALUES,
    fused_net,
    fused_runtime,
    parts,
    picture,
    settled_runtime,
    tabular,
)
from workers.methods.base import METHODS, Maps, Method
from workers.methods.feature_ablation import FeatureAblation
from workers.methods.grad_cam import GradCam
from workers.methods.input_x_gradient import InputXGradient
from workers.methods.integrated_gradients import IntegratedGradients
from workers.methods.kernel_shap import KernelShap
from workers.methods.occlusion import Occlusion
from workers.methods.shapley_sampling import ShapleySampling
from workers.methods.superpixels import segmented
from workers.passes import Forward, TimeUp
from workers.rows import Clean
from workers.runtimes.torch import TorchRuntime
from workers.tabular import accompanied

GRAY = 0.25
JOINT = {"integrated_gradients", "kernel_shap", "lime", "shapley_sampling"}
"""Methods that lead or hide the numbers together with the image: their maps are others."""

SHARING = JOINT | {"input_x_gradient", "occlusion", "feature_ablation"}
TARGETS = (1, 3)


def explained(method: Method, runtime: TorchRuntime, *targets: int) -> Maps:
    plan = method.joint(picture(), logits(*targets or TARGETS), tabular())
    maps = run_alone(accompanied(plan, tabular()), runtime)
    assert isinstance(maps, Maps)
    return maps


def whole(captum: Any, target: int, **options: Any) -> tuple[Tensor, Tensor]:
    """Return captum's attributions of image and numbers."""
    given = (picture()[None], *parts(tabular().values[None]))
    image, *numbers = captum(fused_net()).attribute(given, target=target, **options)
    return image[0].detach(), torch.cat(numbers, 1)[0].detach()


def baselines() -> tuple[Tensor, ...]:
    return (torch.full_like(picture(), GRAY)[None], *parts(tabular().baseline[None]))


@pytest.mark.parametrize("index", [0, 1])
def test_one_path_leads_image_and_numbers_as_captum_leads_a_tuple(index: int) -> None:
    maps = explained(IntegratedGradients(steps=20, baseline=GRAY), fused_runtime())
    image, numbers = whole(
        CaptumIntegratedGradients,
        TARGETS[index],
        baselines=baselines(),
        n_steps=20,
        method="riemann_middle",
    )
    torch.testing.assert_close(maps.values[index], image)
    torch.testing.assert_close(maps.shares[index], numbers)


DOSE: tuple[bool, ...] = (False, False, True)
"""The second tensor alone is asked about."""


def of_some(method: Method, asked: tuple[bool, ...]) -> Maps:
    """Explain image and some of the numbers; the others stay as they are."""
    plan = method.joint(picture(), logits(*TARGETS), tabular().only(asked))
    maps = run_alone(accompanied(plan, tabular()), fused_runtime())
    assert isinstance(maps, Maps)
    return maps


def test_a_tensor_that_is_not_asked_about_stays_as_it_is_on_the_path() -> None:
    first, second = parts(tabular().values[None])
    _, started = parts(tabular().baseline[None])
    net, gray = fused_net(), torch.full_like(picture(), GRAY)[None]
    path = {"n_steps": 20, "method": "riemann_middle", "target": TARGETS[0]}
    method = IntegratedGradients(steps=20, baseline=GRAY)
    image, dose = CaptumIntegratedGradients(lambda x, d, rest: net(x, rest, d)).attribute(
        (picture()[None], second), (gray, started), additional_forward_args=(first,), **path
    )
    both = of_some(method, DOSE)
    torch.testing.assert_close(both.values[0], image[0].detach())
    torch.testing.assert_close(both.shares[0], torch.tensor([0.0, 0.0, dose.item()]).double())
    image = CaptumIntegratedGradients(net).attribute(
        picture()[None], gray, additional_forward_args=(first, second), **path
    )
    alone = of_some(method, (False, False, False))
    torch.testing.assert_close(alone.values[0], image[0].detach())
    assert alone.shares is None


@pytest.mark.parametrize(
    "method",
    [
        Occlusion(window=8),
        InputXGradient(),
        ShapleySampling(segments=4, orders=8),
        KernelShap(segments=4, samples=2000),
    ],
)
def test_what_is_not_asked_about_gets_nothing(method: Method) -> None:
    maps = of_some(method, DOSE)
    assert maps.shares is not None
    assert maps.shares[:, :2].abs().max() <= 1e-9 * maps.shares.abs().max()
    assert maps.shares[:, 2].abs().min() > 0


def test_map_and_shares_add_up_to_the_change_of_both() -> None:
    net, image = fused_net(), picture()
    change = net(image[None], *parts(tabular().values[None])) - net(*baselines())
    maps = explained(IntegratedGradients(tolerance=1e-3, baseline=GRAY), fused_runtime())
    sums = maps.values.flatten(1).sum(1) + maps.shares.sum(1)
    expected = change[0, list(TARGETS)].detach()
    torch.testing.assert_close(sums, expected, rtol=1e-3, atol=0)
    for each, total in zip(maps.extras, sums, strict=True):
        assert each["score_change"] == pytest.approx(
            float(change[0, TARGETS[maps.extras.index(each)]].detach())
        )
        assert each["sum"] == pytest.approx(float(total))
    alone = maps.values.flatten(1).sum(1)
    assert ((alone - expected).abs() > 0.05 * expected.abs()).all()


def test_a_number_counts_its_gradient_from_its_baseline() -> None:
    maps = explained(InputXGradient(), fused_runtime())
    image, numbers = whole(CaptumInputXGradient, TARGETS[1])
    torch.testing.assert_close(maps.values[1], image)
    scale = (torch.tensor(VALUES) - torch.tensor(BASELINE)).double() / torch.tensor(VALUES)
    torch.testing.assert_close(maps.shares[1], numbers * scale)


@pytest.mark.parametrize("method", [Occlusion(window=8), FeatureAblation(segments=9)])
def test_a_number_without_which_the_score_falls_adds_that(method: Method) -> None:
    maps = explained(method, fused_runtime())
    _, numbers = whole(CaptumFeatureAblation, TARGETS[0], baselines=baselines())
    torch.testing.assert_close(maps.shares[0], numbers)


def games(net: Any, labels: Tensor) -> dict[frozenset[int], Tensor]:
    """Return the scores of every coalition of segments and numbers."""
    image, given, segments = picture(), tabular(), int(labels.max()) + 1
    players = range(segments + len(VALUES))
    scores = {}
    for size in range(len(players) + 1):
        for shown in combinations(players, size):
            mask = torch.isin(labels, torch.tensor(shown))
            here = torch.tensor([segments + k in shown for k in range(len(VALUES))])
            numbers = torch.where(here, given.values, given.baseline)
            with torch.no_grad():
                scores[frozenset(shown)] = net(
                    torch.where(mask, image, torch.tensor(GRAY).double())[None],
                    *parts(numbers[None]),
                )[0]
    return scores


def shapley(scores: dict[frozenset[int], Tensor], count: int) -> Tensor:
    """Return Shapley values by their definition, shape ``(players, classes)``."""
    values = torch.zeros(count, 5, dtype=torch.float64)
    for shown, score in scores.items():
        for player in shown:
            without = shown - {player}
            weight = 1 / (count * comb(count - 1, len(without)))
            values[player] += weight * (score - scores[without])
    return values


def test_all_coalitions_give_the_shapley_values_of_segments_and_numbers() -> None:
    labels = segmented(picture(), 4)
    segments = int(labels.max()) + 1
    count = segments + len(VALUES)
    truth = shapley(games(fused_net(), labels), count)
    method = KernelShap(segments=4, samples=2**count, baseline=GRAY)
    maps = explained(method, fused_runtime())
    torch.testing.assert_close(maps.shares, truth[segments:, list(TARGETS)].T)
    for segment in range(segments):
        found = maps.values[0, 0][labels == segment].sum()
        torch.testing.assert_close(found, truth[segment, TARGETS[0]])


def test_few_orders_share_out_the_whole_change_all_the_same() -> None:
    maps = explained(ShapleySampling(segments=4, orders=2, baseline=GRAY), fused_runtime())
    for each, values, shares in zip(maps.extras, maps.values, maps.shares, strict=True):
        assert float(values.sum() + shares.sum()) == pytest.approx(each["score_change"])
        assert abs(float(shares.sum())) > 0.1


@pytest.mark.parametrize("name", [n for n in WITHOUT_TOKENS if n != "class_activation_map"])
def test_every_method_asks_about_the_image_beside_the_patients_numbers(name: str) -> None:
    """Of a network with the numbers settled, every map is the same."""
    small = {"segments": 9} if "segments" in METHODS[name].model_fields else {}
    runtime, plain = fused_runtime(), settled_runtime()
    method = settled(METHODS[name](**small), plain, GRAY)
    maps = explained(method, runtime)
    assert (maps.shares is not None) == (name in SHARING)
    if name not in JOINT:
        expected = attribute(method, plain, picture(), logits(*TARGETS)).values
        span = float(expected.max() - expected.min())
        torch.testing.assert_close(maps.values, expected, rtol=1e-6, atol=1e-6 * span)


def test_grad_cam_beside_numbers_is_captums_with_them_as_further_arguments() -> None:
    maps = explained(GradCam(layer=LAYER), fused_runtime(), 2)
    net = fused_net()
    expected = LayerGradCam(net, net.get_submodule(LAYER)).attribute(
        (picture()[None], *parts(tabular().values[None])), 2
    )
    torch.testing.assert_close(maps.values[0], expected[0].detach())


def test_rows_without_the_numbers_are_refused_and_not_explained_with_others() -> None:
    with pytest.raises(UnservablePass):
        run_alone(InputXGradient().plan(picture(), logits(0)), fused_runtime())
    beside = accompanied(InputXGradient().plan(picture(), logits(0)), tabular())
    with pytest.raises(UnservablePass):
        run_alone(beside, settled_runtime())


def test_a_plan_that_is_stopped_may_still_return_what_it_has() -> None:
    def plan() -> Any:
        try:
            yield Forward(Clean(picture()), logits(0))
        except TimeUp:
            return "partial"

    told = accompanied(plan(), tabular())
    next(told)
    with pytest.raises(StopIteration) as end:
        told.throw(TimeUp())
    assert end.value.value == "partial"


def test_when_time_is_up_the_numbers_have_been_tried_like_the_segments() -> None:
    method, runtime = KernelShap(segments=30, baseline=GRAY), fused_runtime()
    plan = accompanied(method.joint(picture(), logits(*TARGETS), tabular()), tabular())
    part = stopped(plan, runtime, 2 + 330)
    assert part.partial
    torch.testing.assert_close(part.shares, explained(method, runtime).shares, rtol=0.1, atol=0.05)


def test_the_model_is_as_it_was_after_it_was_lent() -> None:
    runtime = fused_runtime()
    explained(METHODS["deep_lift"](), runtime)
    runtime.check()
