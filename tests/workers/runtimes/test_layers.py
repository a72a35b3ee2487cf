"""Which layers are chosen where the package names none."""

import pytest
import torch
from torch import Tensor, nn

from tests.support.engine import (
    CONV,
    POOL,
    SIZES,
    TOP,
    Polynomial,
    attribute,
    image_for,
    logits,
    settled,
    small_net,
)
from workers.methods.ablation_cam import AblationCam
from workers.methods.grad_cam import GradCam
from workers.methods.guided_grad_cam import GuidedGradCam
from workers.methods.layer_cam import LayerCam
from workers.passes import Ability
from workers.rows import INPUT
from workers.runtimes.torch import TorchRuntime

SHAPE = (1, *SIZES[2])


def chosen(model: nn.Module, axes: int = 2) -> TorchRuntime:
    return TorchRuntime(model, (1, *SIZES[axes]), None)


def test_the_deepest_output_of_each_grid_is_chosen_the_deepest_first() -> None:
    runtime = chosen(small_net())
    assert [(each.name, each.shape[1:]) for each in runtime.probed.layers] == [
        (TOP, (10, 8)),
        ("features.2", (20, 16)),
    ]
    assert "grid of 10 x 8 cells" in runtime.probed.layers[0].reason
    assert not runtime.probed.refused


def test_it_holds_in_three_axes_and_the_first_is_what_methods_take() -> None:
    runtime, image = chosen(small_net(3), 3), image_for(3)
    method = settled(GradCam(), runtime)
    assert isinstance(method, GradCam)
    assert method.layer == TOP
    assert attribute(method, runtime, image, logits(1)).values.shape == (1, 1, 6, 5, 4)


def test_named_layers_are_taken_and_no_others() -> None:
    probed = TorchRuntime(small_net(), SHAPE, ("features.0",)).probed
    assert [(each.name, each.reason) for each in probed.layers] == [("features.0", "")]


class Astray(nn.Module):
    """Deepest are a blind branch, a layer used twice, a pooled cell and a list of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.good = CONV[2](1, 3, 3, padding=1)
        self.twice = CONV[2](3, 3, 3, padding=1, stride=2)
        self.blind = POOL[2](3)
        self.listed = Listed()
        self.cell = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.good(x)
        y = self.twice(self.twice(x))
        self.blind(x)
        return self.head(self.cell(self.listed(y)[0]).flatten(1))


class Listed(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x * 2]


def test_only_what_a_method_could_use_is_chosen() -> None:
    runtime = chosen(Astray())
    assert [layer.name for layer in runtime.probed.layers] == ["good"]
    assert Ability.LAYER_GRADIENT in runtime.probed.abilities


def test_nothing_is_left_on_the_model_and_a_run_is_as_before() -> None:
    model, image = Astray(), torch.ones(1, *SHAPE)
    before = model(image).detach()
    runtime = chosen(model)
    watched = [len(module._forward_hooks) for module in model.modules()]
    assert sum(watched) == 1
    with torch.no_grad():
        torch.testing.assert_close(model(image), before)
    runtime.check()


def test_a_model_without_grids_says_so() -> None:
    probed = chosen(Polynomial(SHAPE)).probed
    assert not probed.layers
    assert Ability.LAYER_GRADIENT not in probed.abilities
    assert "no module's output has a spatial grid" in probed.unable[Ability.LAYER_GRADIENT]


class Written(nn.Module):
    """A layer whose output does not stay as it was, and one called for what it changes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.held = nn.Identity()
        self.called = nn.Hardtanh(-50, 50, inplace=True)
        self.last = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv(x)
        held = self.held(conv)
        conv.clamp_(max=50)
        self.called(held)
        return self.last(held + conv).mean((2, 3))


def test_layers_that_writing_in_place_goes_past_are_refused_with_the_reason() -> None:
    """On noise nothing is clamped, so that no value tells."""
    runtime = TorchRuntime(Written(), SHAPE, ("conv", "held", "called", "last"))
    assert "is changed in place" in runtime.probed.refused["held"]
    assert [each.name for each in runtime.probed.layers] == ["conv", "called", "last"]


class Beside(nn.Module):
    """A rectifier that writes in place what also goes on beside it, or the same written out."""

    def __init__(self, axes: int, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = CONV[axes](1, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=in_place)
        self.conv = CONV[axes](4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.relu(x)
        x = x if self.relu.inplace else y
        return self.head((self.conv(y) + x).square().flatten(2).mean(2))


@pytest.mark.parametrize("axes", [2, 3])
def test_a_layer_that_writes_in_place_has_the_map_of_its_twin_that_does_not(axes: int) -> None:
    image = image_for(axes).double()
    served = [
        TorchRuntime(Beside(axes, in_place), image.shape, ("relu",)) for in_place in (True, False)
    ]
    assert all(Ability.RECTIFIER_RULES in each.probed.abilities for each in served)
    for method in (GradCam(), LayerCam(), AblationCam(), GuidedGradCam()):
        maps = [
            attribute(settled(method, each), each, image, logits(1, 2)).values for each in served
        ]
        torch.testing.assert_close(*maps, rtol=1e-9, atol=1e-12)
    beside = [
        each.forward(image[None], {"relu"}, at) for each in served for at in ({"relu"}, {INPUT})
    ]
    grads = [torch.autograd.grad(outputs[0, 1], found["relu"])[0] for outputs, found in beside]
    for each in grads[:-1]:  # whatever else is asked in the same pass
        torch.testing.assert_close(each, grads[-1], rtol=1e-9, atol=1e-12)


class Collecting(nn.Module):
    """Takes a layer's output by a hook of its own, past whatever is done with it after."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
        self.conv.register_forward_hook(self.keep)

    def keep(self, _layer: nn.Module, _inputs: object, output: Tensor) -> None:
        self.kept = output

    def forward(self, x: Tensor) -> Tensor:
        last = self.last(self.conv(x).relu())
        return last.mean((2, 3)) + self.kept.square().mean((2, 3))[:, :3]


def test_a_layer_whose_output_goes_on_past_it_is_refused() -> None:
    probed = TorchRuntime(Collecting(), SHAPE, ("conv", "last")).probed
    assert [each.name for each in probed.layers] == ["last"]
    assert "past the layer too" in probed.refused["conv"]


def test_a_layer_before_one_that_writes_in_place_as_usual_is_served() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    runtime = TorchRuntime(model, SHAPE, ("0", "1"))
    assert [each.name for each in runtime.probed.layers] == ["0", "1"]


class Shared(nn.Module):
    """A last convolution that runs twice, behind one that runs once."""

    def __init__(self) -> None:
        super().__init__()
        self.once = nn.Conv2d(1, 2, 3, stride=2, padding=1)
        self.twice = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.once(x)).relu())
        return x.mean((2, 3))


def test_a_deeper_layer_that_runs_more_than_once_is_told() -> None:
    (layer,) = chosen(Shared().eval()).probed.layers
    assert layer.name == "once"
    assert "'twice', which runs 2 times" in layer.reason
