"""Norms folded into convolutions: the same answers, and the model itself left alone."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from service.errors.models import UnservablePass
from tests.support.engine import CONV, FLAT, NORM, attribute, logits
from workers.methods.grad_cam import GradCam
from workers.methods.occlusion import Occlusion
from workers.methods.saliency import Saliency
from workers.passes import Ability
from workers.runtimes.folding import NORMS, folded
from workers.runtimes.torch import TorchRuntime

SIZES = {1: (41,), 2: (22, 19), 3: (11, 9, 12)}


class Block(nn.Module):
    """A shortcut, rectification in place, and a norm that follows no convolution."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.before = NORM[axes](6)
        self.first = CONV[axes](6, 6, 3, padding=1, groups=2, bias=False)
        self.norm = NORM[axes](6)
        self.second = CONV[axes](6, 6, 3, padding=2, dilation=2)
        self.last = NORM[axes](6, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        way = functional.relu(self.norm(self.first(self.before(x))), inplace=True)
        return functional.relu(self.last(self.second(way)) + x)


def net(axes: int = 2) -> nn.Module:
    """Return a network whose norms have statistics and factors of their own."""
    torch.manual_seed(5)
    stem = (CONV[axes](2, 6, 3, 2), NORM[axes](6), nn.ReLU())
    made = nn.Sequential(*stem, Block(axes), FLAT[axes](1), nn.Flatten(), nn.Linear(6, 4))
    for module in made.modules():
        if isinstance(module, NORMS):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, -2, 2)
                nn.init.normal_(module.bias)
    return made.double().eval().requires_grad_(requires_grad=False)


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, NORMS) for module in model.modules())


@pytest.mark.parametrize("axes", SIZES)
def test_outputs_and_gradients_are_those_of_the_model(axes: int) -> None:
    model = net(axes)
    twin = folded(model, torch.randn(1, 2, *SIZES[axes], dtype=torch.float64), ())
    assert norms(model) == 4
    assert norms(twin) == 1  # the one before a convolution
    batch = torch.randn(3, 2, *SIZES[axes], dtype=torch.float64, requires_grad=True)
    ours, theirs = twin(batch), model(batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    grads = [torch.autograd.grad(each[:, 1].sum(), batch)[0] for each in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-12)


def test_the_model_stays_as_it_is_and_shares_what_is_not_folded() -> None:
    model, row = net(), torch.randn(1, 2, 22, 19, dtype=torch.float64)
    before = copy.deepcopy(model.state_dict())
    twin = folded(model, row, ())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())
    assert twin.get_submodule("6").weight is model.get_submodule("6").weight
    assert twin.get_submodule("0").weight is not model.get_submodule("0").weight
    assert not any(each.requires_grad for each in (*twin.parameters(), *model.parameters()))


def test_layers_that_are_looked_into_put_out_what_they_do_in_the_model() -> None:
    model, row = net(), torch.randn(1, 2, 22, 19, dtype=torch.float64)
    kept = ("0", "3.norm", "3")
    twin = folded(model, row, kept)
    found: list[Tensor] = []
    for network in (model, twin):
        for name in kept:
            layer = network.get_submodule(name)
            layer.register_forward_hook(lambda _layer, _in, out: found.append(out.clone()))
        network(row)
    for expected, given in zip(found[:3], found[3:], strict=True):
        torch.testing.assert_close(given, expected, rtol=1e-11, atol=1e-12)


class Twice(nn.Module):
    """Uses what a convolution puts out beside what its norm makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.weight, 3)

    def forward(self, x: Tensor) -> Tensor:
        value = self.conv(x)
        return (self.norm(value) + value).mean((2, 3))


class Passed(nn.Module):
    """As `Twice`, where what goes past the norm is zero on noise."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        value = self.conv(x)
        return (self.norm(value).relu() + (value - 9).relu()).mean((2, 3))


class Shared(nn.Module):
    """One convolution at two places, one of them before a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)
        nn.init.constant_(self.norm.weight, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(self.conv(x))).mean((2, 3))


class Moody(nn.Module):
    """Fails when its norm is none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.norm, nn.BatchNorm2d)
        return self.norm(self.conv(x)).mean((2, 3))


@pytest.mark.parametrize(
    "model",
    [
        Twice(),
        Passed(),
        Shared(),
        Moody(),
        nn.Sequential(nn.Conv2d(2, 2, 3), nn.InstanceNorm2d(2), nn.Flatten()),
        nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)),
    ],
)
def test_a_model_whose_outputs_would_change_is_served_as_it_stands(model: nn.Module) -> None:
    model.eval()
    assert folded(model, torch.randn(1, 2, 8, 8), ()) is model


@pytest.mark.parametrize("method", [Saliency(), GradCam(layer="0"), GradCam(layer="3.norm")])
def test_maps_are_those_of_the_model_that_is_not_folded(method: Saliency | GradCam) -> None:
    layers, shape = ("0", "3.norm"), (2, 22, 19)
    quick, plain = (TorchRuntime(net(), shape, layers, fixed_rows=rows) for rows in (None, 2))
    assert norms(quick.served) < norms(plain.served) == 4
    image = torch.randn(shape, dtype=torch.float64)
    ours, theirs = (attribute(method, each, image, logits(1)) for each in (quick, plain))
    torch.testing.assert_close(ours.values, theirs.values, rtol=1e-10, atol=1e-12)
    quick.check()


class Collecting(nn.Module):
    """Takes a feature by a hook of its own, as a method or as a function that holds the network."""

    def __init__(self, layer: str, method: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu, self.head = nn.ReLU(), nn.Linear(4, 3)
        self.kept: dict[str, Tensor] = {}
        keep = self.keep if method else lambda *call: self.keep(*call)  # noqa: PLW0108 - not a method
        self.get_submodule(layer).register_forward_hook(keep)
        self.double().eval().requires_grad_(requires_grad=False)

    def keep(self, _layer: nn.Module, _inputs: object, output: Tensor) -> None:
        self.kept["feature"] = output

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        gate = self.kept["feature"].mean((2, 3)).sigmoid()
        return self.head(x.square().mean((2, 3)) * gate)


@pytest.mark.parametrize(("layer", "method"), [("norm", True), ("relu", True), ("relu", False)])
def test_a_network_with_hooks_of_its_own_is_served_as_it_is(layer: str, method: bool) -> None:
    """The copy's hook went with its norm, or wrote to the model: features of another image."""
    model, image = Collecting(layer, method), 3 * torch.randn(1, 9, 8).double() + 1
    runtime = TorchRuntime(model, image.shape, ())
    given = attribute(Saliency(), runtime, image, logits(1))
    batch = image[None].requires_grad_()
    score = model(batch)[0, 1]
    (expected,) = torch.autograd.grad(score, batch)
    torch.testing.assert_close(given.values, expected, rtol=1e-9, atol=1e-12)
    hidden = attribute(Occlusion(window=(3,), stride=3), runtime, image, logits(1))
    masked = image.clone()
    masked[:, :3, :3] = 0
    with torch.no_grad():
        drop = score - model(masked[None])[0, 1]
    torch.testing.assert_close(hidden.values[0, 0, 0, 0], drop, rtol=1e-6, atol=1e-9)


def test_no_copy_of_a_network_is_made_whose_hooks_hold_the_network_itself() -> None:
    held, free = (
        TorchRuntime(Collecting("relu", method), (1, 9, 8), ()) for method in (False, True)
    )
    assert Ability.EXCLUSIVE in free.probed.abilities
    free.recast(torch.float32)
    assert "does not answer as the network does" in held.probed.unable[Ability.EXCLUSIVE]
    assert Ability.EXCLUSIVE not in held.probed.abilities
    for copied in (lambda: held.recast(torch.float32), lambda: held.variant(None)):
        with pytest.raises(UnservablePass, match="copy"):
            copied()
