"""Views: maps cut and put together, held against the network, captum and numbers by hand."""

import copy
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import Tensor, nn

from service.domain.network import Remote
from tests.support.engine import logits, run_alone, short_of_time, through
from tests.support.exported import onnx_of
from tests.support.inference_server import InferenceServer, serving
from workers.abreast import abreast
from workers.architectures.multi_view_cnn import MultiViewCnn
from workers.methods.base import METHODS, Maps, Method, ModelFacts
from workers.passes import Ability, Forward, Pass, Plan, TimeUp
from workers.rows import Clean
from workers.runtimes.base import Runtime
from workers.runtimes.graph.read import read_model
from workers.runtimes.members import Members, mean
from workers.runtimes.onnx import OnnxRuntime
from workers.runtimes.open_inference import Server
from workers.runtimes.remote import RemoteRuntime
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler
from workers.tabular import Companions, Tabular, accompanied
from workers.views import cost_of, maps, piece, together

VIEWS = 3
SHAPE = (1, VIEWS, 12, 10)
TARGETS = (1, 0)
BASELINE = 0.25


class Multiplied(nn.Module):
    """Views that multiply each other: what one does depends on what the others are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.trunk = MultiViewCnn(views=VIEWS, classes=2, widths=(4, 6)).build()
        with torch.no_grad():
            for parameter in self.trunk.parameters():
                parameter.mul_(1.5)
        self.taken: list[Tensor] = []
        """What it was given, in order."""

    def forward(self, views: Tensor) -> Tensor:
        self.taken.append(views.detach().clone())
        said: Tensor = self.trunk(views)
        return said * views.mean((1, 3, 4)).prod(1, keepdim=True).exp()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return Multiplied().double().eval()


@pytest.fixture(scope="module")
def runtime(network: nn.Module) -> TorchRuntime:
    made = TorchRuntime(network, SHAPE, ("trunk.peaks",))
    assert made.probed.layers
    return made


@pytest.fixture(scope="module")
def whole() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    made = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    return made * torch.arange(1, VIEWS + 1).view(1, -1, 1, 1)


def method_of(name: str, layer: str = "trunk.peaks", **parameters: Any) -> Method:
    facts = ModelFacts(layers=(layer,), baseline=BASELINE, sizes=SHAPE[1:])
    return METHODS[name].model_validate(parameters).settled(facts)


def explained(runtime: Runtime, whole: Tensor, name: str, **parameters: Any) -> Maps:
    found = run_alone(maps(method_of(name, **parameters), whole, logits(*TARGETS)), runtime)
    assert isinstance(found, Maps)
    return found


def test_integrated_gradients_of_all_views_are_captums(
    network: nn.Module, runtime: TorchRuntime, whole: Tensor
) -> None:
    found = explained(runtime, whole, "integrated_gradients", steps=16)
    oracle = CaptumIntegratedGradients(network)
    for k, target in enumerate(TARGETS):
        expected = oracle.attribute(
            whole[None], BASELINE, target, n_steps=16, method="riemann_middle"
        )[0]
        torch.testing.assert_close(found.values[k], expected)
        pieces = [piece(found, k, view) for view in range(VIEWS)]
        for view, each in enumerate(pieces):
            np.testing.assert_allclose(each.values, expected[:, view], rtol=1e-5, atol=1e-6)
            others = sum(other.values.sum() for other in pieces if other is not each)
            assert each.elsewhere == pytest.approx(float(others), rel=1e-4)


def test_occlusion_covers_one_view_and_leaves_the_others_as_they_are(
    network: nn.Module, runtime: TorchRuntime, whole: Tensor
) -> None:
    found = explained(runtime, whole, "occlusion", window=5, stride=5)
    assert found.values.shape[:3] == (len(TARGETS), 1, VIEWS)
    with torch.no_grad():
        clean = network(whole[None])[0]
        for view in range(VIEWS):
            for row, column in ((0, 0), (1, 1), (2, 1)):
                covered = whole.clone()
                covered[:, view, 5 * row : 5 * row + 5, 5 * column : 5 * column + 5] = BASELINE
                fall = clean - network(covered[None])[0]
                torch.testing.assert_close(
                    found.values[:, 0, view, row, column], fall[list(TARGETS)]
                )


def test_grad_cam_weighs_channels_of_one_view_alone(
    network: nn.Module, runtime: TorchRuntime, whole: Tensor
) -> None:
    found = explained(runtime, whole, "grad_cam")
    features: list[Tensor] = []
    peaks = network.get_submodule("trunk.peaks")
    handle = peaks.register_forward_hook(lambda *given: features.append(given[2]))
    scores = network(whole[None].requires_grad_())
    handle.remove()
    for k, target in enumerate(TARGETS):
        (gradient,) = torch.autograd.grad(scores[0, target], features, retain_graph=True)
        for view in range(VIEWS):
            weights = gradient[0, :, view].mean((1, 2))
            expected = (weights[:, None, None] * features[0][0, :, view]).sum(0)
            torch.testing.assert_close(found.values[k, 0, view], expected.detach())


def test_ablation_cam_takes_a_channel_from_one_view_alone(
    network: nn.Module, runtime: TorchRuntime, whole: Tensor
) -> None:
    found = explained(runtime, whole, "ablation_cam")
    peaks, seen = network.get_submodule("trunk.peaks"), []
    handle = peaks.register_forward_hook(lambda *given: seen.append(given[2]))
    with torch.no_grad():
        clean = network(whole[None])[0]
    handle.remove()
    (features,) = seen
    for view in range(VIEWS):
        falls = []
        for channel in range(features.shape[1]):

            def without(*given: Any, channel: int = channel, view: int = view) -> Tensor:
                changed: Tensor = given[2].clone()
                changed[:, channel, view] = 0
                return changed

            handle = peaks.register_forward_hook(without)
            with torch.no_grad():
                falls.append(clean - network(whole[None])[0])
            handle.remove()
        for k, target in enumerate(TARGETS):
            weights = torch.stack(falls)[:, target]
            expected = (weights[:, None, None] * features[0, :, view]).sum(0)
            torch.testing.assert_close(found.values[k, 0, view], expected)


@pytest.mark.parametrize("name", ["kernel_shap", "shapley_sampling"])
def test_what_is_shared_out_in_one_view_is_the_fall_without_it(
    network: nn.Module, runtime: TorchRuntime, whole: Tensor, name: str
) -> None:
    found = explained(runtime, whole, name, segments=4)
    with torch.no_grad():
        clean = network(whole[None])[0]
        for view in range(VIEWS):
            without = whole.clone()
            without[:, view] = BASELINE
            fall = clean - network(without[None])[0]
            for k, target in enumerate(TARGETS):
                each = piece(found, k, view)
                assert each.elsewhere == 0
                assert each.extras["score_change"] == pytest.approx(float(fall[target]), rel=1e-6)
                assert each.values.sum() == pytest.approx(float(fall[target]), rel=1e-4)


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_batch_of_any_size_gives_the_same(
    runtime: TorchRuntime, whole: Tensor, chunk: int
) -> None:
    facts = ModelFacts(baseline=BASELINE, sizes=SHAPE[1:])
    method = METHODS["occlusion"].model_validate({"window": 5, "stride": 5}).settled(facts)
    alone = run_alone(maps(method, whole, logits(1)), runtime)
    cut = run_alone(maps(method, whole, logits(1)), runtime, chunk=chunk)
    torch.testing.assert_close(cut.values, alone.values)


def test_a_graph_of_the_same_views_gives_the_same_maps(whole: Tensor) -> None:
    torch.manual_seed(3)
    network = MultiViewCnn(views=VIEWS, classes=2, widths=(4, 6)).build().eval()
    image = whole.float()
    graph = OnnxRuntime(read_model(onnx_of(network, image)), SHAPE)
    runtime = TorchRuntime(network, SHAPE, ("peaks",))
    for name, parameters in (("saliency", {}), ("occlusion", {"window": 5, "stride": 5})):
        ours, theirs = (explained(each, image, name, **parameters) for each in (graph, runtime))
        torch.testing.assert_close(ours.values, theirs.values, rtol=1e-3, atol=1e-5)


def test_methods_of_the_inputs_gradient_see_all_views_at_once_and_no_other() -> None:
    whole = {name for name in METHODS if together(METHODS[name])}
    assert {"saliency", "integrated_gradients", "deep_lift", "guided_backprop"} <= whole
    assert whole.isdisjoint({"occlusion", "rise", "lime", "grad_cam", "score_cam"})
    assert whole.isdisjoint({"guided_grad_cam", "layer_cam"})
    occlusion = METHODS["occlusion"](window=4)
    alone = occlusion.estimate((1, 12, 10), 1).rows
    assert cost_of(occlusion, SHAPE, 1, several=True).rows == VIEWS * alone
    assert Ability.EXCLUSIVE not in occlusion.needs


# ------------------------------------------------------------------- side by side


@pytest.mark.parametrize("name", ["grad_cam", "score_cam", "eigen_cam"])
def test_views_share_the_pass_over_the_unchanged_image(
    runtime: TorchRuntime, whole: Tensor, name: str
) -> None:
    method = method_of(name)
    assert isinstance(runtime.served, Multiplied)
    runtime.served.taken.clear()
    (found,) = through(Scheduler(), runtime, maps(method, whole, logits(*TARGETS)))
    clean = [int((each == whole).flatten(1).all(1).sum()) for each in runtime.served.taken]
    assert sum(clean) == 1
    expected = explained(runtime, whole, name)
    torch.testing.assert_close(found.values, expected.values)


def test_when_time_is_up_every_view_gives_what_it_has(whole: Tensor) -> None:
    def patient(view: int) -> Plan[str]:
        try:
            yield Forward(Clean(whole))
        except TimeUp:
            return f"{view} in part"
        return f"{view}"

    def quick(view: int) -> Plan[str]:
        return f"{view}"
        yield

    plan: Generator[Pass | tuple[Pass, ...], Any, tuple[str, ...]] = abreast(
        [quick(0), patient(1), patient(2)]
    )
    asked = next(plan)
    assert isinstance(asked, tuple)
    assert len(asked) == 2
    with pytest.raises(StopIteration) as end:
        plan.throw(TimeUp())
    assert end.value.value == ("0", "1 in part", "2 in part")


def test_each_view_has_a_map_when_time_is_up_before_the_last_could_be_done(
    runtime: TorchRuntime, whole: Tensor
) -> None:
    plan = maps(method_of("rise", samples=256), whole, logits(1))
    (found,) = through(Scheduler(slice_seconds=1e-9), runtime, plan, **short_of_time(0.75, 2.0))
    assert found.partial
    for view, each in enumerate(found.of_views):
        samples = int(each.extras[0]["samples"])
        assert 0 < samples < 256
        expected = explained(runtime, whole, "rise", samples=samples).values[0, :, view]
        torch.testing.assert_close(found.values[0, :, view], expected)


# ------------------------------------------------------------------ beside numbers


BESIDE = Tabular(
    torch.tensor([0.75, -1.5], dtype=torch.float64), torch.tensor([0.25, 0.5], dtype=torch.float64)
)


@pytest.fixture(scope="module")
def beside() -> nn.Module:
    """A network of views and two numbers, which say much together."""
    torch.manual_seed(4)
    made = MultiViewCnn(views=VIEWS, classes=2, widths=(4, 6), variables=2).build()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.5)
    return made.double().eval()


def joint(network: nn.Module, whole: Tensor, name: str, **parameters: Any) -> Maps:
    made = copy.deepcopy(network)
    Companions(BESIDE.baseline, (2,)).join(made)
    runtime = TorchRuntime(made, SHAPE, ("peaks",), variables=2)
    method = method_of(name, "peaks", **parameters)
    plan = accompanied(maps(method, whole, logits(*TARGETS), BESIDE), BESIDE)
    found = run_alone(plan, runtime)
    assert isinstance(found, Maps)
    return found


def test_views_and_numbers_share_the_score_out_as_captum_shares_it(
    beside: nn.Module, whole: Tensor
) -> None:
    found = joint(beside, whole, "integrated_gradients", steps=10)
    for k, target in enumerate(TARGETS):
        image, numbers = CaptumIntegratedGradients(beside).attribute(
            (whole[None], BESIDE.values[None]),
            baselines=(torch.full_like(whole, BASELINE)[None], BESIDE.baseline[None]),
            target=target,
            n_steps=10,
            method="riemann_middle",
        )
        torch.testing.assert_close(found.values[k], image[0].detach())
        for view in range(VIEWS):
            np.testing.assert_allclose(piece(found, k, view).shares or (), numbers[0].detach())


def test_a_number_is_taken_away_beside_the_views_as_they_are(
    beside: nn.Module, whole: Tensor
) -> None:
    found = joint(beside, whole, "occlusion", window=6)
    with torch.no_grad():
        clean = beside(whole[None], BESIDE.values[None])[0]
        without = [beside(whole[None], values[None])[0] for values in BESIDE.without()]
    for k, target in enumerate(TARGETS):
        falls = [float((clean - each)[target]) for each in without]
        for view in range(VIEWS):
            np.testing.assert_allclose(piece(found, k, view).shares or (), falls)


@pytest.mark.parametrize("name", ["kernel_shap", "shapley_sampling"])
def test_one_view_and_the_numbers_are_players_of_one_game(
    beside: nn.Module, whole: Tensor, name: str
) -> None:
    found = joint(beside, whole, name, segments=4)
    with torch.no_grad():
        clean = beside(whole[None], BESIDE.values[None])[0]
        for view in range(VIEWS):
            without = whole.clone()
            without[:, view] = BASELINE
            fall = clean - beside(without[None], BESIDE.baseline[None])[0]
            for k, target in enumerate(TARGETS):
                each = piece(found, k, view)
                total = float(each.values.sum()) + sum(each.shares or ())
                assert total == pytest.approx(float(fall[target]), rel=1e-4)


def test_methods_of_images_alone_see_the_views_beside_the_patients_numbers(
    beside: nn.Module, whole: Tensor
) -> None:
    found = joint(beside, whole, "grad_cam")
    assert piece(found, 0, 1).shares is None
    numbers = BESIDE.values[None]

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = beside

        def forward(self, views: Tensor) -> Tensor:
            said: Tensor = self.network(views, numbers.expand(len(views), -1))
            return said

    alone = TorchRuntime(Fixed(), SHAPE, ("network.peaks",))
    method = method_of("grad_cam", "network.peaks")
    expected = run_alone(maps(method, whole, logits(*TARGETS)), alone)
    torch.testing.assert_close(found.values, expected.values)


# ----------------------------------------------------------------- other runtimes


def views_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return MultiViewCnn(views=VIEWS, classes=2, widths=(4, 6)).build().eval()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("integrated_gradients", {"steps": 4}), ("occlusion", {"window": 6}), ("hires_cam", {})],
)
def test_maps_of_folds_are_the_mean_of_each_folds(
    whole: Tensor, name: str, parameters: dict[str, Any]
) -> None:
    folds = [TorchRuntime(views_network(seed).double(), SHAPE, ("peaks",)) for seed in (5, 6)]
    method = method_of(name, "peaks", **parameters)
    apart = [run_alone(maps(method, whole, logits(*TARGETS)), each).values for each in folds]
    found = run_alone(maps(method, whole, logits(*TARGETS)), Members(folds, mean))
    torch.testing.assert_close(found.values, torch.stack(apart).mean(0))


def test_views_on_a_server_have_the_maps_of_the_same_network_here(whole: Tensor) -> None:
    image, network = whole.float(), views_network(3)
    remote = Remote(endpoint="lab", model="chest", input="image", output="logits")
    with serving(InferenceServer(onnx_of(network, image))) as server:
        there = RemoteRuntime(Server(server.url, remote, 10.0), remote, "lab", SHAPE)
        found = explained(there, image, "occlusion", window=5, stride=5)
    here = explained(TorchRuntime(network, SHAPE), image, "occlusion", window=5, stride=5)
    torch.testing.assert_close(found.values, here.values, rtol=1e-3, atol=1e-5)
