"""Views: maps cut and put together, held against the network, captum and numbers by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import Tensor, nn

from tests.support.engine import logits, run_alone
from tests.support.exported import onnx_of
from workers.architectures.multi_view_cnn import MultiViewCnn
from workers.methods.base import METHODS, Maps, ModelFacts
from workers.passes import Ability
from workers.runtimes.base import Runtime
from workers.runtimes.graph.read import read_model
from workers.runtimes.onnx import OnnxRuntime
from workers.runtimes.torch import TorchRuntime
from workers.views import maps, piece, rows_of, together

VIEWS = 3
SHAPE = (1, VIEWS, 12, 10)
TARGETS = (1, 0)
BASELINE = 0.25


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Views that multiply each other: what one does depends on what the others are."""
    torch.manual_seed(2)
    trunk = MultiViewCnn(views=VIEWS, classes=2, widths=(4, 6)).build()
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.mul_(1.5)

    class Multiplied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk

        def forward(self, views: Tensor) -> Tensor:
            said: Tensor = self.trunk(views)
            return said * views.mean((1, 3, 4)).prod(1, keepdim=True).exp()

    return Multiplied().double().eval()


@pytest.fixture(scope="module")
def runtime(network: nn.Module) -> TorchRuntime:
    return TorchRuntime(network, SHAPE, ("trunk.peaks",))


@pytest.fixture(scope="module")
def whole() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    made = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    return made * torch.arange(1, VIEWS + 1).view(1, -1, 1, 1)


def explained(runtime: Runtime, whole: Tensor, name: str, **parameters: Any) -> Maps:
    facts = ModelFacts(layers=("trunk.peaks",), baseline=BASELINE, sizes=SHAPE[1:])
    method = METHODS[name].model_validate(parameters).settled(facts)
    found = run_alone(maps(method, whole, logits(*TARGETS)), runtime)
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
    assert rows_of(occlusion, SHAPE, 1) == VIEWS * alone
    assert Ability.EXCLUSIVE not in occlusion.needs
