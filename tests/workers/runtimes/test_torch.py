"""What the eager runtime finds out of a model, and what it refuses."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from service.errors.models import ModelUnavailable, UnservablePass
from tests.support.engine import (
    LAYER,
    TOP,
    SmallNet,
    attribute,
    image_for,
    logits,
    run_alone,
    small_net,
    small_runtime,
)
from workers.methods.grad_cam import GradCam
from workers.passes import Ability, Forward, Gradient, Plan, Step, Tap
from workers.rows import INPUT, Ablated, Clean, Given, Noisy
from workers.runtimes.base import Segment, Served
from workers.runtimes.torch import TorchRuntime
from workers.union import work_of

SHAPE = (1, 20, 16)


def served(ask: Forward | Gradient, runtime: TorchRuntime) -> Step:
    def plan() -> Plan[Step]:
        step: Step = yield ask
        return step

    step = run_alone(plan(), runtime)
    assert isinstance(step, Step)
    return step


def test_the_probe_finds_abilities_layers_and_outputs() -> None:
    probed = TorchRuntime(small_net(), SHAPE, (LAYER, "features.0", TOP, "nowhere")).probed
    assert probed.abilities == set(Ability) - {Ability.ATTENTION}
    assert {layer.name: layer.shape for layer in probed.layers} == {
        LAYER: (8, 10, 8),
        "features.0": (6, 20, 16),
        TOP: (8, 10, 8),
    }
    assert [layer.stride for layer in probed.layers] == [(2.0, 2.0), (1.0, 1.0), (2.0, 2.0)]
    assert probed.linear_heads == {TOP}
    assert set(probed.refused) == {"nowhere"}
    assert probed.outputs == (5,)
    assert not probed.mixes_rows
    assert set(probed.row_seconds) == set(probed.row_bytes) == {"forward", "gradient"}
    assert probed.row_seconds["gradient"] > 0
    assert probed.row_bytes["gradient"] > probed.row_bytes["forward"] > 0


def test_bytes_a_row_are_what_the_layers_hold() -> None:
    """Two maps of 64 channels alive at once, in float32: no more, no less."""
    net = nn.Sequential(nn.Conv2d(1, 64, 1), nn.Sigmoid(), nn.Flatten(), nn.Linear(64 * 320, 2))
    probed = TorchRuntime(net, SHAPE).probed
    one_map = 64 * 320 * 4
    assert probed.row_bytes["forward"] == pytest.approx(2 * one_map, rel=0.05)
    weights = 4 * (64 + 64 + 2 * 64 * 320 + 2)
    assert probed.fixed_bytes == pytest.approx(weights, rel=0.01)


class Centered(nn.Module):
    """Subtracts the batch's mean: a row's result depends on its neighbors."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)).flatten(1)[:, :3]


class Together(nn.Module):
    """Brings a batch to a scale by what is found in all of its rows."""

    def __init__(self, scaled: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.scaled = scaled

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.scaled(x)).flatten(1).sum(1, keepdim=True)


TOGETHER: dict[str, Callable[[Tensor], Tensor]] = {
    "maximum": lambda x: 3 * x / x.max(),
    "minimum": lambda x: x - x.min(),
    "absolute maximum": lambda x: x / x.abs().max(),
    "minimum and maximum": lambda x: (x - x.min()) / (x.max() - x.min()),
    "mean, no gradient": lambda x: x - x.detach().mean(),
    "median": lambda x: x - x.median(),
    "quantile": lambda x: x / x.quantile(0.99),
    "threshold": lambda x: torch.where(x > x.detach().mean(), x, 0 * x),
    "where the maximum is": lambda x: x * (x == x.amax()),
    "the first row": lambda x: x - x[:1],
}


@pytest.mark.parametrize(
    "model", [Centered(), *(pytest.param(Together(f), id=name) for name, f in TOGETHER.items())]
)
@pytest.mark.parametrize("shape", [SHAPE, (1, 12, 12), (1, 64, 64), (1, 128, 128), (1, 9, 8, 7)])
def test_a_model_that_mixes_rows_is_found_and_runs_one_row_at_a_time(
    model: nn.Module, shape: tuple[int, ...]
) -> None:
    runtime = TorchRuntime(model, shape)
    assert runtime.probed.mixes_rows
    work = work_of([Forward(Noisy(torch.zeros(shape), 1.0, 1, 9), logits(0))])
    assert runtime.fits(runtime.group(work)).rows == 1


@pytest.mark.parametrize("scaled", [torch.relu, lambda x: x / x.flatten(1).amax(1)[:, None, None]])
def test_a_model_that_scales_each_row_by_itself_runs_many_at_once(
    scaled: Callable[[Tensor], Tensor],
) -> None:
    assert not TorchRuntime(Together(lambda x: scaled(x[:, 0])), SHAPE).probed.mixes_rows


class Twice(nn.Module):
    """Runs one layer twice and another never."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(1, 1, 3, padding=1)
        self.unused = nn.Conv2d(1, 1, 3)
        self.pair = Pair()

    def forward(self, x: Tensor) -> Tensor:
        return self.pair(self.shared(functional.relu(self.shared(x))))[0].flatten(1)[:, :3]


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_layers_that_cannot_be_used_are_refused_by_name_with_the_reason() -> None:
    runtime = TorchRuntime(Twice(), SHAPE, ("shared", "unused", "pair"))
    refused = runtime.probed.refused
    assert "more than once" in refused["shared"]
    assert "not reached" in refused["unused"]
    assert "no tensor" in refused["pair"]
    assert Ability.LAYER_GRADIENT not in runtime.probed.abilities
    for layer in refused:
        with pytest.raises(UnservablePass, match=layer):
            runtime.group(work_of([Gradient(Clean(image_for()), logits(0), at=(layer,))]))


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return x.flatten(1)[:, :3]


def test_a_model_without_gradients_offers_none() -> None:
    runtime = TorchRuntime(Detached(), SHAPE)
    assert runtime.probed.abilities == {Ability.FORWARD, Ability.EXCLUSIVE}
    with pytest.raises(UnservablePass, match="no gradient"):
        runtime.group(work_of([Gradient(Clean(image_for()), logits(0))]))


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x]


def test_a_model_that_puts_out_no_tensor_is_refused() -> None:
    with pytest.raises(ModelUnavailable):
        _ = TorchRuntime(Nothing(), SHAPE).probed


@pytest.mark.parametrize("change", [Tensor.sum, lambda found: found[:, 0], torch.fft.fft])
def test_outputs_that_are_no_rows_of_real_numbers_are_refused(
    change: Callable[[Tensor], Tensor],
) -> None:
    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = small_net()

        def forward(self, image: Tensor) -> Tensor:
            return change(self.network(image))

    with pytest.raises(ModelUnavailable, match="of shape"):
        _ = TorchRuntime(Changed(), SHAPE, ()).probed


def test_rows_of_another_input_are_refused() -> None:
    class Tabular(Given):
        @property
        def shapes(self) -> dict[str, tuple[int, ...]]:
            return {"age": (1,)}

    with pytest.raises(UnservablePass):
        small_runtime().group(work_of([Forward(Tabular(image_for()[None]), logits(0))]))


def test_a_layer_followed_by_an_in_place_one_is_captured_before_the_change() -> None:
    """`features.4` is followed by an in-place ReLU: its output must stay signed."""
    runtime, image = small_runtime(), image_for()
    net = small_net()
    before = net.features[:5](image[None])[0].detach()
    assert (before < 0).any()
    tapped = served(Forward(Clean(image), logits(0), taps=(Tap(LAYER),)), runtime)
    cut = served(Gradient(Clean(image), logits(0), at=(LAYER,)), runtime)
    united = served(Gradient(Clean(image), logits(0), at=(INPUT, LAYER)), runtime)
    torch.testing.assert_close(tapped.taps[Tap(LAYER)][0], before)
    torch.testing.assert_close(cut.activations[LAYER][0], before)
    torch.testing.assert_close(united.activations[LAYER][0], before)
    torch.testing.assert_close(united.gradients[LAYER], cut.gradients[LAYER])


def test_an_ablated_row_lacks_its_channel_and_no_other() -> None:
    """Also where an in-place layer follows, and whatever its neighbors lack."""
    runtime, images = small_runtime(), (image_for(), image_for(seed=1))
    channels = (0, 3, 7)
    works = [work_of([Forward(Ablated(each, LAYER, channels), logits(1, 2))]) for each in images]
    (group,) = {runtime.group(work) for work in works}
    given = runtime.serve(group, [Segment(work, 1, 3) for work in works])
    net = small_net()
    for image, answer in zip(images, given, strict=True):
        assert isinstance(answer, Served)
        features = net.features[:5](image[None]).detach()
        for row, channel in enumerate(channels[1:]):
            without = features.clone()
            without[:, channel] = 0
            expected = net.head(net.pool(net.features[5](without)).flatten(1))[0, 1:3]
            torch.testing.assert_close(answer.scores[row], expected.detach())
    runtime.check()
    torch.testing.assert_close(
        served(Forward(Clean(images[0]), logits(1)), runtime).scores[0, 0],
        net(images[0][None])[0, 1].detach(),
    )


def test_ablation_of_a_layer_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(UnservablePass, match="nowhere"):
        small_runtime().group(work_of([Forward(Ablated(image_for(), "nowhere", (0,)), logits(0))]))


def test_the_graph_is_cut_at_the_layer() -> None:
    """Nothing before the layer takes part in the way back."""
    runtime = small_runtime()
    assert isinstance(runtime.served, SmallNet)
    ways_down: list[int] = []
    handle = runtime.served.features[3].register_full_backward_hook(lambda *_: ways_down.append(1))
    served(Gradient(Clean(image_for()), logits(0), at=(LAYER,)), runtime)
    assert not ways_down
    served(Gradient(Clean(image_for()), logits(0)), runtime)
    assert ways_down == [1]
    handle.remove()


def test_two_layers_in_one_pass_each_get_their_own_gradient() -> None:
    image = image_for()
    runtime = TorchRuntime(small_net(), SHAPE, (LAYER, "features.0"))
    both = served(Gradient(Clean(image), logits(1, 2), at=("features.0", LAYER)), runtime)
    for layer in ("features.0", LAYER):
        single = served(Gradient(Clean(image), logits(1, 2), at=(layer,)), runtime)
        torch.testing.assert_close(both.gradients[layer], single.gradients[layer])
        torch.testing.assert_close(both.activations[layer], single.activations[layer])


def test_works_of_different_patterns_do_not_share_a_batch() -> None:
    runtime, image = small_runtime(), image_for()
    asks = [
        Forward(Clean(image), logits(0)),
        Forward(Clean(image), logits(0), outputs=True),
        Forward(Clean(image), logits(0), taps=(Tap(LAYER),)),
        Gradient(Clean(image), logits(0)),
        Gradient(Clean(image), logits(0, 1)),
        Gradient(Clean(image), logits(0), at=(LAYER,)),
        Forward(Ablated(image, LAYER, (0,)), logits(0)),
        Forward(Ablated(image, TOP, (0,)), logits(0)),
    ]
    assert len({runtime.group(work_of([ask])) for ask in asks}) == len(asks)


def test_a_layer_that_the_network_does_not_have_is_told_so_with_the_nearest_names() -> None:
    refused = TorchRuntime(small_net(), SHAPE, (LAYER, "features.44", "zzz")).probed.refused
    assert refused["features.44"] == (
        "The network has no layer 'features.44'. The nearest names are: features.4, features.5,"
        " features.3."
    )
    assert refused["zzz"] == "The network has no layer 'zzz'."


def test_the_number_of_targets_does_not_part_forward_passes() -> None:
    runtime, image = small_runtime(), image_for()
    few, many = (work_of([Forward(Clean(image), logits(*range(k)))]) for k in (1, 5))
    assert runtime.group(few) == runtime.group(many)


def test_where_the_head_is_cheap_jobs_of_different_numbers_of_targets_share_a_batch() -> None:
    runtime = small_runtime()
    runtime.__dict__["probed"] = replace_cheap(runtime)
    image, other = image_for(), image_for(seed=3)
    works = [
        work_of([Gradient(Clean(image), logits(4), at=(LAYER,))]),
        work_of([Gradient(Clean(other), logits(0, 1, 2), at=(LAYER,))]),
    ]
    (group,) = {runtime.group(work) for work in works}
    one, three = runtime.serve(group, [Segment(work, 0, 1) for work in works])
    assert isinstance(one, Served)
    assert isinstance(three, Served)
    for given, ask in ((one, (image, (4,))), (three, (other, (0, 1, 2)))):
        alone = served(Gradient(Clean(ask[0]), logits(*ask[1]), at=(LAYER,)), small_runtime())
        for k in range(len(ask[1])):
            torch.testing.assert_close(given.gradients[k, LAYER], alone.gradients[LAYER][:, k])


def replace_cheap(runtime: TorchRuntime) -> object:
    """Return the probe as it would be for a model with a negligible head."""
    from dataclasses import replace  # noqa: PLC0415 - this helper alone

    return replace(runtime.probed, cheap_heads=frozenset({LAYER}))


def test_memory_limits_the_rows_of_a_batch() -> None:
    runtime = small_runtime()
    need = runtime.probed.row_bytes["gradient"]
    group = runtime.group(work_of([Gradient(Clean(image_for()), logits(0))]))
    assert [runtime.fits(group).within(size) for size in (10 * need + 1, 0)] == [10, 1]


def test_a_hook_does_nothing_outside_a_pass() -> None:
    runtime, image = small_runtime(), image_for()
    with torch.no_grad():
        torch.testing.assert_close(runtime.model(image[None]), small_net()(image[None]))


def test_a_changed_copy_is_served_beside_the_model_that_stays_as_it_was() -> None:
    runtime, image = small_runtime(), image_for()
    before = attribute(GradCam(layer=LAYER), runtime, image, logits(2)).values
    network = copy.deepcopy(runtime.model)
    with torch.no_grad():
        network.head.weight[2] *= -1
    variant = runtime.variant(network)
    mirrored = attribute(GradCam(layer=LAYER), variant, image, logits(2)).values
    torch.testing.assert_close(mirrored, -before)
    torch.testing.assert_close(
        attribute(GradCam(layer=LAYER), runtime, image, logits(2)).values, before
    )
    runtime.check()


@pytest.mark.parametrize("network", [None, small_net()])
def test_a_copy_runs_one_row_at_a_time(network: nn.Module | None) -> None:
    variant = small_runtime().variant(network)
    assert variant.fits(variant.group(work_of([Forward(Clean(image_for()), logits(0))]))).rows == 1


class Unsteady(nn.Module):
    """A network of which a part is drawn, counted or remembered."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)
        self.register_buffer("mean", torch.ones(4))
        self.kind, self.calls = kind, 0

    def forward(self, image: Tensor) -> Tensor:
        cells = self.conv(image).relu()
        if self.kind == "drawn":
            cells = functional.dropout(cells, 0.5, training=True)
        elif self.kind == "counted":
            self.calls += 1
            cells = cells * (1 + 0.01 * self.calls)
        elif self.kind == "remembered":
            self.mean.data.mul_(0.9).add_(0.1 * cells.detach().mean((0, 2, 3)))
            cells = cells / self.mean.reshape(1, -1, 1, 1)
        found: Tensor = self.head(cells.mean((2, 3)))
        return found


@pytest.mark.parametrize("kind", ["drawn", "counted", "remembered"])
def test_a_network_that_contradicts_itself_is_refused(kind: str) -> None:
    runtime = TorchRuntime(Unsteady(kind).eval(), SHAPE, ())
    with pytest.raises(ModelUnavailable, match="each time it is asked the same"):
        _ = runtime.probed


def test_the_same_network_without_any_of_these_is_served() -> None:
    assert TorchRuntime(Unsteady("steady").eval(), SHAPE, ()).probed.outputs == (3,)
