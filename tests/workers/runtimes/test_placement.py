"""Which layers lie over the image: found where no layer is named, and demanded of those named."""

import pytest
import torch
from torch import Tensor, nn

from tests.support.engine import attribute, settled
from tests.support.exported import onnx_of, uninterpreted
from tests.workers.runtimes.graph.test_models import architecture
from workers.methods.grad_cam import GradCam
from workers.passes import Ability
from workers.runtimes.graph.read import read_model
from workers.runtimes.onnx import OnnxRuntime
from workers.runtimes.torch import TorchRuntime
from workers.targets.scalars import ClassLogit

SHAPE = (1, 24, 16)
CELL = 4
VIT = {
    "channels": 1,
    "classes": 2,
    "image": (32, 16),
    "patch": 8,
    "width": 24,
    "depth": 2,
    "heads": 2,
}


class Turned(nn.Module):
    """A patch's mean, mixed with its channels last as in ConvNeXt, and a mean over the patches.

    As many channels as the grid has rows, so that no size tells one axis from another.
    """

    def __init__(self, channels: int = SHAPE[1] // CELL) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(1, channels, CELL, stride=CELL, bias=False)
        self.mixed = nn.Linear(channels, channels, bias=False)
        self.held = nn.Identity()
        self.head = nn.Linear(channels, 2)
        with torch.no_grad():
            self.patches.weight.fill_(1 / CELL**2)
            self.mixed.weight.copy_(torch.eye(channels) + 0.1)
            self.head.weight.copy_(torch.tensor([[1.0], [-1.0]]).expand(2, channels))

    def forward(self, x: Tensor) -> Tensor:
        last = self.mixed(self.patches(x).permute(0, 2, 3, 1))
        return self.head(self.held(last.permute(0, 3, 1, 2)).mean((2, 3)))


class Bordered(nn.Module):
    """A border of padding that is a layer of its own, as EfficientNet has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(1, 5, CELL, stride=CELL)
        self.border = nn.ZeroPad2d((0, 2, 1, 1))
        self.last = nn.Conv2d(5, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.border(self.patches(x))).mean((2, 3))


class Flattened(nn.Module):
    """Cells one after the other, with an axis of length 1 behind."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 3, CELL, stride=CELL)
        self.flat = nn.Flatten(2)
        self.row = nn.Unflatten(2, (-1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.row(self.flat(self.patches(x))).mean((2, 3))


class FarSighted(nn.Module):
    """Layers of which each cell has seen the whole image many times over."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(1, 8, 2, stride=2)
        self.blurs = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(24)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blurs(self.patches(x)).mean((2, 3))


def bright(row: int, column: int) -> Tensor:
    """Return a dark image with one bright cell."""
    image = torch.zeros(SHAPE)
    image[:, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 1
    return image


def test_features_turned_back_are_chosen_and_those_with_channels_last_are_not() -> None:
    probed = TorchRuntime(Turned(), SHAPE, None).probed
    assert [each.name for each in probed.layers] == ["held"]
    named = TorchRuntime(Turned(), SHAPE, ("mixed", "patches")).probed
    assert [each.name for each in named.layers] == ["patches"]
    assert "channels that come last" in named.refused["mixed"]


@pytest.mark.parametrize("place", [(0, 3), (5, 0), (2, 1)])
def test_the_chosen_layer_of_an_onnx_file_marks_the_cell_that_is_bright(
    place: tuple[int, int],
) -> None:
    """Grad-CAM is then the patch's mean times a positive constant: one cell alone is not zero."""
    runtime = OnnxRuntime(read_model(onnx_of(Turned(), torch.zeros(SHAPE))), SHAPE)
    assert all(each.shape[1:] == (6, 4) for each in runtime.probed.layers)
    method = settled(GradCam(), runtime)
    (heat,) = attribute(method, runtime, bright(*place), (ClassLogit(0),)).values[0]
    assert heat.argmax() == place[0] * 4 + place[1]
    assert heat.count_nonzero() == 1


@pytest.mark.parametrize("interpreted", [True, False])
def test_a_tensor_of_the_graph_with_channels_last_is_refused_by_its_name(
    interpreted: bool,
) -> None:
    content = onnx_of(Turned(), torch.zeros(SHAPE))
    content = content if interpreted else uninterpreted(content)
    tensors = {"last": "/mixed/MatMul_output_0", "patches": "/patches/Conv_output_0"}
    probed = OnnxRuntime(read_model(content), SHAPE, tensors).probed
    assert [each.name for each in probed.layers] == ["patches"]
    assert "'last' (6 x 4 x 6)" in probed.refused["last"]
    assert Ability.ACTIVATIONS in probed.abilities


def test_of_a_transformers_file_the_patches_alone_are_chosen() -> None:
    """Not the scores of its attention, ``(heads, tokens, tokens)``."""
    content = onnx_of(architecture("vit", **VIT)().eval(), torch.zeros(1, 32, 16), fixed=True)
    (layer,) = OnnxRuntime(read_model(content), (1, 32, 16)).probed.layers
    assert layer.name == "/embed/Conv_output_0"
    assert layer.shape == (24, 4, 2)


def test_a_border_of_padding_is_not_chosen_and_refused_when_named() -> None:
    assert [each.name for each in TorchRuntime(Bordered(), SHAPE, None).probed.layers] == ["last"]
    probed = TorchRuntime(Bordered(), SHAPE, ("border", "last")).probed
    assert [each.name for each in probed.layers] == ["last"]
    assert "border of padding" in probed.refused["border"]


def test_cells_one_after_the_other_are_no_grid() -> None:
    probed = TorchRuntime(Flattened(), SHAPE, ("row", "patches")).probed
    assert [each.name for each in probed.layers] == ["patches"]
    assert "(3 x 24 x 1)" in probed.refused["row"]


def test_a_layer_that_has_seen_everything_is_placed_by_those_before_it() -> None:
    (layer,) = TorchRuntime(FarSighted(), SHAPE, None).probed.layers
    assert layer.name == "blurs"


@pytest.mark.parametrize("bias", [0.0, -9.0])
def test_a_layer_that_noise_does_not_wake_is_tried_on_more(bias: float) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), Mean())
    nn.init.constant_(net[0].bias, bias)
    (layer,) = TorchRuntime(net, SHAPE, ("1",)).probed.layers
    assert layer.name == "1"


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))
