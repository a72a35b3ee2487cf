"""Autoencoders of torch and ONNX on the shelf: one number each, and what is none is refused."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from service.packages import PackageRecord
from tests.support.engine import attribute, run_alone, settled
from tests.support.exported import onnx_of, write_onnx_package
from tests.support.hospital import register
from tests.support.small_model import SIDE, network
from tests.workers.shelf.conftest import Room
from tests.workers.shelf.test_activation import asked, image
from workers.architectures.conv_autoencoder import ConvAutoencoder
from workers.methods.base import METHODS
from workers.targets.scalars import Linear

OUTPUTS = [
    {"decoding": "squared_error", "values": [{"key": "error", "label": "Reconstruction error"}]}
]
SHAPE = {"widths": [4, 2]}
CONSTANT = Linear(((0, 1.0),))


def autoencoder() -> nn.Module:
    torch.manual_seed(3)
    return ConvAutoencoder.model_validate(SHAPE).build().eval()


def error() -> float:
    with torch.no_grad():
        return functional.mse_loss(autoencoder()(image()[None]), image()[None]).item()


def changes(expected: float) -> dict[str, Any]:
    test = {"title": "one", "input": "plain.dcm", "logits": [expected], "tolerance": 1e-4}
    return {"task": "reconstruction", "outputs": OUTPUTS, "selftests": [test]}


def exported(room: Room, model: nn.Module, expected: float) -> PackageRecord:
    files = {"model.onnx": onnx_of(model, torch.zeros(1, SIDE, SIDE))}
    package = write_onnx_package(room.folder / "exported", files, **changes(expected))
    return register(room.store, package)


def test_a_graph_puts_out_its_error_and_has_the_maps_of_torch(room: Room) -> None:
    record = exported(room, autoencoder(), error())
    entry = room.entry(record)
    assert entry.failure is None
    assert (entry.target_kinds, entry.values[0].key) == (("embedding",), "error")
    runtime = room.shelf.get(record.package).runtime
    assert run_alone(asked(), runtime).outputs[0].tolist() == pytest.approx([error()], rel=1e-4)
    leaf = image()[None].requires_grad_()
    (gradient,) = torch.autograd.grad(functional.mse_loss(autoencoder()(leaf), leaf), leaf)
    method = settled(METHODS["input_x_gradient"](), runtime)
    found = attribute(method, runtime, image(), (CONSTANT,)).values[0]
    torch.testing.assert_close(
        found, (gradient * leaf.detach())[0].double(), rtol=1e-3, atol=1e-6, check_dtype=False
    )


@pytest.mark.parametrize("model", [network, lambda: nn.Conv2d(1, 2, 1)])
def test_a_network_that_does_not_give_its_input_back_is_refused(room: Room, model: Any) -> None:
    sound = room.register("sound")
    bad = exported(room, model(), 0.0)
    assert "give back what it is given" in room.refusal(bad)
    failure = room.entry(bad).failure
    assert failure is not None
    assert failure.facts["field"] == "/task"
    assert failure.facts["expected"] == [1, SIDE, SIDE]
    assert room.entry(sound).state == "ready"


def test_edges_that_cannot_be_halved_as_often_are_told(room: Room) -> None:
    words = changes(0.0)
    bad = room.register(
        "odd",
        architecture="conv_autoencoder",
        shape={"widths": [4, 4, 4, 4, 2]},
        changes=words,
    )
    assert "halved as often" in room.refusal(bad)
