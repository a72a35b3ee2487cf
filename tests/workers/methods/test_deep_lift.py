"""DeepLIFT: the paper's rescale rule neuron by neuron, closed forms, what must be refused."""

import sys
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from service.registry import Registry
from tests.support.engine import (
    CLASSES,
    CONV,
    NORM,
    POOL,
    SIZES,
    SmallNet,
    attribute,
    image_for,
    logits,
    run_alone,
    settled,
    small_runtime,
    through,
)
from tests.support.small_model import network
from workers.architectures.base import Square
from workers.methods import lent
from workers.methods.base import METHODS, Maps
from workers.methods.deep_lift import DeepLift
from workers.methods.deep_lift_shap import DeepLiftShap
from workers.methods.saliency import Saliency
from workers.passes import Ability
from workers.running import Planned
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

SMALL = {1: (9,), 2: (5, 4), 3: (4, 3, 3)}
METHODS_HERE = [DeepLift(baseline=0.3), DeepLiftShap(samples=6)]


def layered(axes: int, *, in_place: bool = False) -> nn.Sequential:
    """Return a network of linear layers and of non-linearities that act on single numbers."""
    torch.manual_seed(5)
    cells = torch.Size(SMALL[axes]).numel()
    net = nn.Sequential(
        CONV[axes](1, 3, 3, padding=1),
        NORM[axes](3),
        nn.ReLU(inplace=in_place),
        CONV[axes](3, 2, 3, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(2 * cells, 6),
        nn.ReLU(inplace=in_place),
        nn.Linear(6, 5),
        Square(),
        nn.Linear(5, 4),
    )
    net[1].running_mean.uniform_(-0.3, 0.3)
    return net.double().eval()


def by_the_paper(net: nn.Sequential, image: Tensor, reference: Tensor, target: int) -> Tensor:
    """Lead one score's multipliers back layer by layer, neuron by neuron."""
    seen = [(image[None], reference[None])]
    with torch.no_grad():
        for layer in net:
            seen.append(tuple(layer(each.clone()) for each in seen[-1]))
        multipliers = [float(k == target) for k in range(seen[-1][0].numel())]
        for layer, (here, there) in zip(reversed(net), reversed(seen[:-1]), strict=True):
            after = [layer(each.clone()).flatten() for each in (here, there)]
            if isinstance(layer, (nn.ReLU, nn.Tanh, Square)):
                change, given = after[0] - after[1], (here - there).flatten()
                multipliers = [
                    m * float(out) / float(into) if into else 0.0
                    for m, out, into in zip(multipliers, change, given, strict=True)
                ]
                continue
            origin, led = layer(torch.zeros_like(here)).flatten(), []
            for k in range(here.numel()):
                unit = torch.zeros(here.numel(), dtype=here.dtype)
                unit[k] = 1
                column = (layer(unit.reshape(here.shape)).flatten() - origin).tolist()
                led.append(sum(m * c for m, c in zip(multipliers, column, strict=True)))
            multipliers = led
    return (image - reference) * torch.tensor(multipliers).reshape(image.shape)


def image_of(axes: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(1, *SMALL[axes], generator=generator, dtype=torch.float64)


def mean_over_grays(image: Tensor, count: int, single: Callable[[Tensor], Tensor]) -> Tensor:
    low, high = image.min(), image.max()
    grays = [low + (high - low) * (k + 0.5) / count for k in range(count)]
    return sum(single(torch.full_like(image, float(gray))) for gray in grays) / count


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_deep_lift_is_the_papers_rescale_rule(axes: int, in_place: bool) -> None:
    net, image = layered(axes, in_place=in_place), image_of(axes)
    runtime = TorchRuntime(net, (1, *SMALL[axes]))
    assert Ability.RESCALE_RULE in runtime.probed.abilities
    maps = attribute(DeepLift(baseline=0.3), runtime, image, logits(0, 3))
    for values, target in zip(maps.values, (0, 3), strict=True):
        expected = by_the_paper(layered(axes), image, torch.full_like(image, 0.3), target)
        torch.testing.assert_close(values, expected)


def test_deep_lift_shap_is_its_mean_over_every_gray() -> None:
    net, image = layered(2), image_of(2)
    maps = attribute(DeepLiftShap(samples=6), TorchRuntime(net, (1, *SMALL[2])), image, logits(1))
    expected = mean_over_grays(image, 6, lambda gray: by_the_paper(net, image, gray, 1))
    torch.testing.assert_close(maps.values[0], expected)


def test_references_that_do_not_fit_together_are_taken_one_by_one() -> None:
    """Of memory that holds two rows at once: one image and one reference."""
    image, sizes = image_of(2), []
    runtime = TorchRuntime(layered(2), (1, *SMALL[2]))
    expected = attribute(DeepLiftShap(samples=6), runtime, image, logits(1))

    def scarce(module: nn.Module, args: tuple[Tensor]) -> None:
        sizes.append(len(args[0]))
        if len(args[0]) > 2 and module.training is False:
            raise torch.OutOfMemoryError("simulated")

    net = layered(2)
    net.register_forward_pre_hook(scarce)
    runtime = TorchRuntime(net, (1, *SMALL[2]))
    runtime.recall(TorchRuntime(layered(2), (1, *SMALL[2])).probed)
    maps = run_alone(DeepLiftShap(samples=6).plan(image, logits(1)), runtime, chunk=2)
    torch.testing.assert_close(maps.values, expected.values)
    assert max(sizes) > 2


class Weighted(nn.Module):
    """f(x) = w x + c."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = nn.Linear(20, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(x.flatten(1))


def test_of_a_linear_model_it_is_weight_times_difference() -> None:
    model, image = Weighted(), image_of(2)
    weights = model.sum.weight[2].detach().reshape(image.shape)
    runtime = TorchRuntime(model, tuple(image.shape))
    single, mean = (attribute(each, runtime, image, logits(2)).values[0] for each in METHODS_HERE)
    torch.testing.assert_close(single, weights * (image - 0.3))
    torch.testing.assert_close(mean, weights * (image - (image.min() + image.max()) / 2))


class Branches(nn.Module):
    """One tensor goes into two non-linearities and a shortcut; each pixel on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rectify, self.bend = nn.ReLU(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        z = 2 * x - 0.1
        return (self.rectify(z) + self.bend(z) + z).flatten(1).sum(1, keepdim=True)


def test_branches_of_one_tensor_each_count_once() -> None:
    image = image_of(2)
    runtime = TorchRuntime(Branches().double(), tuple(image.shape))
    maps = attribute(DeepLift(baseline=0.3), runtime, image, logits(0))

    def single(x: Tensor) -> Tensor:
        z = 2 * x - 0.1
        return z.clamp(min=0) + z.tanh() + z

    torch.testing.assert_close(maps.values[0], single(image) - single(torch.full_like(image, 0.3)))


class Peaks(nn.Module):
    """A weighted sum of the largest rectified value of each pair."""

    def __init__(self) -> None:
        super().__init__()
        self.peaks = nn.Sequential(nn.ReLU(), nn.MaxPool1d(2))
        self.sum = nn.Linear(6, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(self.peaks(x).flatten(1))


def test_max_pooling_right_after_a_rectifier_shares_out_each_pairs_own_change() -> None:
    model, image = Peaks(), torch.linspace(-2, 2, 12).double()[None][:, torch.randperm(12)]
    runtime = TorchRuntime(model, (1, 12))
    assert Ability.RESCALE_RULE in runtime.probed.abilities
    maps = attribute(DeepLift(baseline=0.4), runtime, image, logits(1))
    change = model.peaks(image).detach() - 0.4
    of_pairs = maps.values[0].reshape(6, 2).sum(1)
    torch.testing.assert_close(of_pairs, model.sum.weight[1].detach() * change[0])


class Pooled(nn.Module):
    """Linear in the maxima of windows of three in steps of two, beyond the edges too."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.pool = POOL[axes](3, stride=2, padding=1)
        cells = self.pool(torch.zeros(1, 1, *SMALL[axes])).numel()
        self.sum = nn.Linear(cells, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.sum(self.pool(x).flatten(1))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_place_in_several_windows_is_counted_in_each(axes: int) -> None:
    """What rises above the reference goes to the image's maximum, what falls to the other's."""
    torch.manual_seed(3)
    model, image = Pooled(axes), image_of(axes)
    runtime = TorchRuntime(model, tuple(image.shape))
    assert Ability.RESCALE_RULE in runtime.probed.abilities
    reference = 0.3
    maps = attribute(DeepLift(baseline=reference), runtime, image, logits(1))
    expected = torch.zeros_like(image)
    grid = [range((size + 1) // 2) for size in SMALL[axes]]
    for weight, cell in zip(model.sum.weight[1].tolist(), product(*grid), strict=True):
        window = list(
            product(
                *(
                    range(max(0, 2 * at - 1), min(size, 2 * at + 2))
                    for at, size in zip(cell, SMALL[axes], strict=True)
                )
            )
        )
        peak = max(window, key=lambda place: image[0][place].item())
        change = image[0][peak].item() - reference
        # the reference's values are all alike: its maximum is the window's first
        expected[0][peak if change > 0 else window[0]] += weight * change
    torch.testing.assert_close(maps.values[0], expected)


@pytest.mark.parametrize("method", METHODS_HERE, ids=lambda each: each.name)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_maps_sum_to_the_change_in_score(axes: int, method: DeepLift | DeepLiftShap) -> None:
    runtime, image = small_runtime(axes, 2), image_for(axes, 2)
    maps = attribute(method, runtime, image, logits(0, 3))
    with torch.no_grad():
        scores = runtime.model(torch.stack([image, torch.full_like(image, 0.3)]))
    for values, figures, target in zip(maps.values, maps.extras, (0, 3), strict=True):
        assert values.sum().item() == pytest.approx(figures["score_change"], abs=1e-10)
        assert figures["score"] == pytest.approx(scores[0, target].item())
        assert abs(figures["residual"]) < 1e-10
        if isinstance(method, DeepLift):
            assert figures["baseline_score"] == pytest.approx(scores[1, target].item())


def test_the_models_own_baseline_is_taken_where_none_is_given() -> None:
    runtime, image = small_runtime(), image_for()
    own = attribute(settled(DeepLift(), runtime, 0.7), runtime, image, logits(1))
    given = attribute(DeepLift(baseline=0.7), runtime, image, logits(1))
    assert torch.equal(own.values, given.values)
    other = attribute(DeepLift(baseline=0.0), runtime, image, logits(1))
    assert not torch.equal(own.values, other.values)


class Functional(SmallNet):
    """Its last rectifier is a function."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features[:5](x).relu()).flatten(1))


class Reused(SmallNet):
    """One rectifier serves twice."""

    def forward(self, x: Tensor) -> Tensor:
        norm, relu, pool, conv = self.features[1:5]
        twice = relu(conv(pool(relu(norm(self.features[0](x))))))
        return self.head(self.pool(twice).flatten(1))


class Smooth(SmallNet):
    """A non-linearity of which captum has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.features[5] = nn.GELU()


class Squared(SmallNet):
    """Its features are squared by a function."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x) ** 2).flatten(1))


def test_the_demos_network_is_served_and_its_squares_keep_the_sum() -> None:
    side, model = 48, network()
    runtime = TorchRuntime(model.double(), (1, side, side))
    assert Ability.RESCALE_RULE in runtime.probed.abilities
    generator = torch.Generator().manual_seed(4)
    image = torch.randn(1, side, side, generator=generator, dtype=torch.float64)
    maps = attribute(DeepLift(baseline=-0.5), runtime, image, logits(0, 2))
    for figures in maps.extras:
        assert abs(figures["residual"]) <= 1e-9 * abs(figures["score_change"])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Functional, "no module of its own"),
        (Reused, "more than once"),
        (Smooth, "has no rule"),
        (Squared, "miss the change"),
    ],
    ids=["functional", "reused", "gelu", "square"],
)
def test_a_network_on_which_contributions_do_not_add_up_is_refused(
    kind: Callable[[], nn.Module], reason: str
) -> None:
    torch.manual_seed(0)
    runtime = TorchRuntime(kind(), (1, *SIZES[2]))
    assert reason in runtime.probed.unable[Ability.RESCALE_RULE]
    abilities = runtime.probed.abilities
    assert not METHODS["deep_lift"].needs <= abilities
    assert not METHODS["deep_lift_shap"].needs <= abilities
    assert METHODS["gradient_shap"].needs <= abilities
    runtime.check()


def test_other_jobs_get_turns_between_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, image, scheduler = small_runtime(), image_for(), Scheduler()
    told: list[str] = []
    lend = runtime.lend

    def noted(*given: object) -> object:
        told.append("lent")
        return lend(*given)

    monkeypatch.setattr(runtime, "lend", noted)
    targets = logits(*range(CLASSES))
    long = Planned(DeepLiftShap(samples=8).plan(image, targets), 1)
    lengthy = scheduler.submit("long", runtime, [long])
    while not told:
        scheduler.turn()
    short = scheduler.submit("short", runtime, [Planned(Saliency().plan(image, logits(0)), 1)])
    short.add_done_callback(lambda _: told.append("other"))
    scheduler.run_until_idle()
    assert told[1:3].count("other") == 1
    assert told.count("lent") == 4 * CLASSES  # of two references each
    (maps,) = lengthy.result(0).outcomes
    alone = attribute(DeepLiftShap(samples=8), small_runtime(), image, targets)
    torch.testing.assert_close(maps.values, alone.values)


@pytest.mark.parametrize("method", METHODS_HERE, ids=lambda each: each.name)
def test_a_target_that_takes_too_long_fails_and_spares_the_replica(
    method: DeepLift | DeepLiftShap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lent, "SECONDS", -1.0)
    lost: list[object] = []
    runtime, image = small_runtime(), image_for()
    late, maps = through(
        Scheduler(on_lost=lost.append),
        runtime,
        method.plan(image, logits(0)),
        Saliency().plan(image, logits(0)),
    )
    assert late.code == "deadline_exceeded"
    assert "lent to one job alone" in late.detail
    assert isinstance(maps, Maps)
    assert not lost


def test_without_captum_the_parts_are_listed_and_nothing_else_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tail = ("deep_lift", "deep_lift_shap", "gradient_shap")
    for name in tail:
        monkeypatch.delitem(sys.modules, f"workers.methods.{name}")
    for name in ("captum", "captum.attr"):
        monkeypatch.setitem(sys.modules, name, None)
    parts: Registry[object] = Registry("workers.methods", "whylight.none")
    reason = "It needs captum, which is not installed."
    assert dict(parts.unavailable) == dict.fromkeys(tail, reason)
    probed = small_runtime().probed
    assert "not installed" in probed.unable[Ability.RESCALE_RULE]
    assert Ability.INPUT_GRADIENT in probed.abilities
