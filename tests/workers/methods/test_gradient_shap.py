"""Gradient SHAP: closed forms, what many samples come to, draws that disturb nobody."""

import numpy as np
import pytest
import torch
from captum.attr import GradientShap as Captum
from torch import Tensor, nn

from service.domain.trust import Flag
from tests.support.engine import Polynomial, attribute, image_for, logits, small_net, small_runtime
from workers.measures.base import Case
from workers.measures.completeness import Completeness
from workers.methods.gradient_shap import GradientShap
from workers.passes import Ability
from workers.running import Planned
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

SHAPE = (1, 4, 3)


def image_of() -> Tensor:
    generator = torch.Generator().manual_seed(6)
    return torch.randn(*SHAPE, generator=generator, dtype=torch.float64)


def grays(image: Tensor, count: int) -> Tensor:
    low, high = image.min().item(), image.max().item()
    values = [low + (high - low) * (k + 0.5) / count for k in range(count)]
    return torch.tensor(values, dtype=torch.float64)


class Weighted(nn.Module):
    """f(x) = w x."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(8)
        self.w = nn.Parameter(torch.randn(*SHAPE, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.w * x).flatten(1).sum(1, keepdim=True)


def test_of_a_linear_model_each_sample_is_weight_times_way() -> None:
    """Whatever was drawn, the mean of the references is one gray, and a mean of four of them."""
    model, image = Weighted(), image_of()
    maps = attribute(
        GradientShap(samples=4, grays=5, seed=3), TorchRuntime(model, SHAPE), image, logits(0)
    )
    drawn = image - maps.values[0] / model.w.detach()
    assert (drawn - drawn.mean()).abs().max() < 1e-12
    fourfold = 4 * drawn.mean()
    step = grays(image, 5).diff()[0]
    draws = (fourfold - 4 * grays(image, 5)[0]) / step
    assert draws.item() == pytest.approx(round(draws.item()), abs=1e-9)


def test_many_samples_come_to_the_mean_over_grays_and_shares() -> None:
    """(x - r) (w1 + w2 (x + r)), averaged over references, within four standard errors."""
    model, image = Polynomial(SHAPE), image_of()
    method = GradientShap(samples=1024, grays=7)
    values = attribute(method, TorchRuntime(model, SHAPE), image, logits(0)).values[0]
    references = grays(image, 7).reshape(-1, 1, 1, 1)
    ways = image - references
    expected = (ways * (model.w1 + model.w2 * (image + references))).mean(0).detach()
    shares = torch.linspace(0.005, 0.995, 100, dtype=torch.float64).reshape(-1, 1, 1, 1, 1)
    single = ways * (model.w1 + 2 * model.w2 * (references + shares * ways))
    error = single.detach().flatten(0, 1).std(0) / 1024**0.5
    assert ((values - expected).abs() <= 4 * error).all()
    assert (error < 0.1 * single.detach().flatten(0, 1).std(0)).all()


def test_it_states_what_its_sum_leaves_of_the_change_in_score() -> None:
    image, net = image_for(), small_net()
    maps = attribute(GradientShap(samples=8, grays=4), small_runtime(), image, logits(2))
    (figures,) = maps.extras
    with torch.no_grad():
        end = net(image[None])[0, 2].item()
        start = net(grays(image, 4).reshape(-1, 1, 1, 1).expand(-1, *image.shape))[:, 2].mean()
    assert figures["score_change"] == pytest.approx(end - start.item())
    assert figures["sum"] == pytest.approx(maps.values.sum().item())
    assert figures["residual"] == pytest.approx(figures["sum"] - figures["score_change"])


def test_noise_is_added_in_shares_of_the_images_range() -> None:
    """Of a linear model noise stays in the map: its spread tells how strong it was."""
    model, image = Weighted(), image_of()
    method = GradientShap(samples=4, grays=2, noise=0.5)
    values = attribute(method, TorchRuntime(model, SHAPE), image, logits(0)).values[0]
    drawn = image - values / model.w.detach()
    sigma = 0.5 * (image.max() - image.min()) / 4**0.5
    assert 0.5 * sigma < drawn.std() < 1.6 * sigma


def test_equal_seeds_give_equal_maps_and_no_other_draw_is_disturbed() -> None:
    runtime, image = small_runtime(), image_for()

    def values(seed: int) -> Tensor:
        return attribute(GradientShap(samples=8, seed=seed), runtime, image, logits(1)).values

    np.random.seed(1)  # noqa: NPY002 - the generator that is watched
    torch.manual_seed(1)
    before = (np.random.rand(2).tolist(), torch.rand(2).tolist())  # noqa: NPY002 - likewise
    np.random.seed(1)  # noqa: NPY002 - likewise
    torch.manual_seed(1)
    first = values(5)
    assert (np.random.rand(2).tolist(), torch.rand(2).tolist()) == before  # noqa: NPY002 - likewise
    assert torch.equal(values(5), first)
    assert not torch.equal(values(6), first)


def test_maps_that_are_made_by_turns_are_those_that_each_makes_alone() -> None:
    """The model and the process's generators go from one to the other after every call."""
    runtime, image, net, scheduler = small_runtime(), image_for(), small_net(), Scheduler()
    methods = [GradientShap(samples=16, noise=0.1, seed=seed) for seed in (5, 6)]
    jobs = [
        scheduler.submit(str(each.seed), runtime, [Planned(each.plan(image, logits(1)), 16)])
        for each in methods
    ]
    scheduler.run_until_idle()
    for method, job in zip(methods, jobs, strict=True):
        with torch.random.fork_rng([]):
            torch.manual_seed(method.seed)
            np.random.seed(method.seed)  # noqa: NPY002 - captum draws from it
            sigma = 0.1 * (image.max() - image.min()).item()
            given = grays(image, 16).reshape(-1, 1, 1, 1).expand(-1, *image.shape)
            captum = Captum(lambda rows: net(rows)[:, 1])
            calls = [captum.attribute(image[None], given, 4, sigma) for _ in range(4)]
        (maps,) = job.result(0).outcomes
        torch.testing.assert_close(maps.values[0], torch.cat(calls).mean(0))


def test_a_job_that_is_cancelled_amid_a_target_ends_after_the_call_it_is_in() -> None:
    runtime, image, scheduler, told = small_runtime(), image_for(), Scheduler(), list[float]()
    plan = Planned(GradientShap(samples=1024).plan(image, logits(0)), 1041)
    job = scheduler.submit("job", runtime, [plan], on_progress=told.append)
    while not told or told[-1] < 0.03:
        scheduler.turn()
    scheduler.cancel("job")
    scheduler.turn()
    (outcome,) = job.result(0).outcomes
    assert outcome.code == "cancelled"
    assert told[-2] < 0.04
    runtime.check()


def test_all_targets_see_the_same_draws() -> None:
    runtime, image = small_runtime(), image_for()
    both = attribute(GradientShap(samples=8), runtime, image, logits(0, 3)).values
    alone = attribute(GradientShap(samples=8), runtime, image, logits(3)).values
    assert torch.equal(both[1], alone[0])


class Blind(Weighted):
    """f(x) = w x + a part of w x that has no gradient."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        seen = super().forward(x)
        return seen + self.share * seen.detach()


@pytest.mark.parametrize(("share", "served"), [(0.0, True), (0.3, False), (-0.9, False)])
def test_a_network_with_a_part_without_gradient_is_refused(share: float, *, served: bool) -> None:
    probed = TorchRuntime(Blind(share), SHAPE).probed
    assert (Ability.PATH_GRADIENT in probed.abilities) == served
    if not served:
        assert "no gradient" in probed.unable[Ability.PATH_GRADIENT]
        assert not GradientShap.needs <= probed.abilities


class Sharp(Weighted):
    """f(x) = a step of the mean that is smooth, and done within a hundredth of a way."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.sigmoid(200 * (x.flatten(1).mean(1, keepdim=True)))


def test_a_network_whose_score_only_bends_sharply_is_served() -> None:
    assert Ability.PATH_GRADIENT in TorchRuntime(Sharp(), SHAPE).probed.abilities


def test_a_map_of_too_few_samples_is_flagged_as_incomplete() -> None:
    maps = attribute(GradientShap(samples=4), small_runtime(), image_for(), logits(2))
    case = Case(maps.values[0].numpy(), score=1.0, of_scores=False, extras=maps.extras[0])
    assert Completeness().judge(case).flags == (Flag.INCOMPLETE,)
