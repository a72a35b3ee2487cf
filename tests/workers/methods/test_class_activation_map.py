"""CAM: the head's own weights, and no head taken for a linear one that is not."""

import pytest
import torch
from torch import Tensor, nn

from service.errors.requests import InvalidParameter, MissingAbility
from tests.support.engine import (
    CLASSES,
    CONV,
    FLAT,
    LAYER,
    SIZES,
    TOP,
    attribute,
    image_for,
    logits,
    settled,
    small_net,
    small_runtime,
)
from workers.methods.class_activation_map import ClassActivationMap
from workers.methods.grad_cam import GradCam
from workers.passes import Ability
from workers.runtimes.torch import TorchRuntime

AXES = [1, 2, 3]


class Headed(nn.Module):
    """A layer ``body`` of four channels and any head."""

    def __init__(self, head: nn.Module, axes: int = 2) -> None:
        super().__init__()
        self.body = CONV[axes](1, 4, 3, stride=2, padding=1)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class MeanThen(nn.Module):
    """Functional pooling, then whatever follows."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.mean(tuple(range(2, x.dim()))))


class Beside(Headed):
    """The score has a second way, past the layer."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.flatten(1)[:, :CLASSES] ** 2


def runtime_of(model: nn.Module, axes: int = 2) -> TorchRuntime:
    return TorchRuntime(model.double(), (1, *SIZES[axes]), ("body",))


@pytest.mark.parametrize("axes", AXES)
def test_it_is_the_layer_weighted_by_the_heads_weights(axes: int) -> None:
    image, runtime = image_for(axes, 2), small_runtime(axes, 2)
    maps = attribute(settled(ClassActivationMap(), runtime), runtime, image, logits(1, 4))
    net = small_net(axes, 2)
    features = net.features(image[None])[0].detach()
    for values, target in zip(maps.values, (1, 4), strict=True):
        by_hand = torch.einsum("c,c...->...", net.head.weight[target].detach(), features)
        torch.testing.assert_close(values[0], by_hand)
        score = net(image[None])[0, target] - net.head.bias[target]
        torch.testing.assert_close(values.mean(), score.detach())


def test_it_is_grad_cam_times_the_number_of_cells() -> None:
    image, runtime = image_for(), small_runtime()
    cam = attribute(settled(ClassActivationMap(), runtime), runtime, image, logits(0)).values
    grad = attribute(GradCam(layer=TOP), runtime, image, logits(0)).values
    torch.testing.assert_close(cam, grad * grad.numel())


def heads(axes: int) -> dict[str, nn.Module]:
    pool = FLAT[axes](1)
    return {
        "module": nn.Sequential(pool, nn.Flatten(), nn.Linear(4, CLASSES)),
        "functional": MeanThen(nn.Linear(4, CLASSES)),
        "two linear": MeanThen(nn.Linear(4, 7), nn.Linear(7, CLASSES)),
        "convolution": nn.Sequential(CONV[axes](4, CLASSES, 1), pool, nn.Flatten()),
        "normed": MeanThen(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, CLASSES)),
    }


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", list(heads(1)))
def test_every_way_to_write_such_a_head_is_found(name: str, axes: int) -> None:
    torch.manual_seed(0)
    probed = runtime_of(Headed(heads(axes)[name], axes), axes).probed
    assert probed.linear_heads == {"body"}
    assert Ability.LINEAR_HEAD in probed.abilities


OTHERS = {
    "bent at high scores alone": MeanThen(nn.Linear(4, CLASSES), nn.Hardtanh(-40, 40)),
    "rectified": MeanThen(nn.ReLU(), nn.Linear(4, CLASSES)),
    "hidden layer": MeanThen(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, CLASSES)),
    "softmax": MeanThen(nn.Linear(4, CLASSES), nn.Softmax(1)),
    "sigmoid": MeanThen(nn.Linear(4, CLASSES), nn.Sigmoid()),
    "maximum": nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)),
    "flat": nn.Sequential(nn.Flatten(), nn.Linear(4 * 10 * 8, CLASSES)),
    "four pools": nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, CLASSES)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_head_is_taken_for_one(name: str) -> None:
    torch.manual_seed(0)
    probed = runtime_of(Headed(OTHERS[name])).probed
    assert not probed.linear_heads
    assert Ability.LINEAR_HEAD not in probed.abilities
    assert "linear head" in probed.unable[Ability.LINEAR_HEAD]


def test_a_score_with_a_way_past_the_layer_is_not_the_layers_mean() -> None:
    torch.manual_seed(0)
    assert not runtime_of(Beside(heads(2)["module"])).probed.linear_heads


def test_only_layers_with_such_a_head_are_taken() -> None:
    runtime = small_runtime()
    assert settled(ClassActivationMap(), runtime).layer == TOP  # type: ignore[attr-defined]
    with pytest.raises(InvalidParameter) as refused:
        settled(ClassActivationMap(layer=LAYER), runtime)
    assert refused.value.facts["valid"] == [TOP]
    with pytest.raises(MissingAbility):
        settled(ClassActivationMap(), runtime_of(Headed(OTHERS["flat"])))
