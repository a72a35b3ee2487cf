"""Networks that end in a sigmoid or a softmax: undone where that is said, refused where not."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn
from typing_extensions import override

from service.domain.manifest import Manifest
from service.domain.network import Remote
from service.errors.models import ModelUnavailable
from service.packages import PackageRecord
from tests.support.engine import attribute, image_for, logits, run_alone, settled, small_net
from tests.support.exported import onnx_of, write_onnx_package
from tests.support.hospital import register
from tests.support.inference_server import InferenceServer, serving
from tests.support.small_model import (
    CLASSES,
    LAYER,
    SIDE,
    entry_of,
    model_input,
    network,
    picture,
    write_package,
)
from tests.workers.shelf.conftest import Room
from workers.activation import Activation
from workers.architectures.base import ARCHITECTURES, Architecture
from workers.methods.base import METHODS
from workers.passes import Forward
from workers.rows import Clean
from workers.runtimes.open_inference import Server
from workers.runtimes.remote import RemoteRuntime
from workers.runtimes.torch import TorchRuntime

MULTICLASS = "classification-multiclass"


class Odd(nn.Module):
    """A sigmoid that is written out, so that no graph tells of it."""

    @override
    def forward(self, values: Tensor) -> Tensor:
        return 1 / (1 + torch.exp(-values))


class OddSoftmax(nn.Module):
    """The same of a softmax."""

    @override
    def forward(self, values: Tensor) -> Tensor:
        each = torch.exp(values)
        return each / each.sum(1, keepdim=True)


ENDS: dict[str, tuple[nn.Module, str]] = {
    "sigmoid": (nn.Sigmoid(), "classification-multilabel"),
    "softmax": (nn.Softmax(1), MULTICLASS),
    "written out sigmoid": (Odd(), "classification-multilabel"),
    "written out softmax": (OddSoftmax(), MULTICLASS),
}


def image() -> Tensor:
    return model_input(picture())


def ended(room: Room, last: nn.Module, says: str, task: str, **changes: Any) -> PackageRecord:
    """Register the small network with something behind it; its self-tests tell what that says."""
    model = nn.Sequential(network(), last).eval()
    with torch.no_grad():
        answer = model(image()[None])[0].tolist()
    tests = [
        {"title": each, "input": f"{each}.dcm", says: [*answer], "tolerance": 1e-4}
        for each in ("plain", "inverted")
    ]
    files = {"model.onnx": onnx_of(model, torch.zeros(1, SIDE, SIDE))}
    words = {"activation": says, "task": task, "selftests": tests, **changes}
    return register(room.store, write_onnx_package(room.folder / "ended", files, **words))


@pytest.mark.parametrize("end", ENDS)
def test_scores_and_maps_are_those_of_the_network_without_its_last_activation(
    room: Room, end: str
) -> None:
    last, task = ENDS[end]
    record = ended(room, last, "probabilities", task)
    assert room.entry(record).failure is None
    runtime = room.shelf.get(record.package).runtime
    own = TorchRuntime(network(), (1, SIDE, SIDE))
    step = run_alone(asked(), runtime)
    with torch.no_grad():
        expected = own.model(image()[None])
    if task == MULTICLASS:  # a softmax forgets what all logits share
        expected, found = expected - expected[:, :1], step.outputs - step.outputs[:, :1]
    else:
        found = step.outputs
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    if task == MULTICLASS:
        return
    for name in ("integrated_gradients", "occlusion", "saliency"):
        targets = logits(0, 2)
        ours, theirs = (
            attribute(settled(METHODS[name](), each), each, image(), targets).values
            for each in (runtime, own)
        )
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3 * float(theirs.abs().max()))


class Ended(Architecture):
    """The small network with something behind it, as a network of a deployer's own."""

    end: str

    @override
    def build(self) -> nn.Module:
        last, _ = ENDS[self.end]
        return nn.Sequential(OrderedDict(net=network(), last=last))


def listed(room: Room, monkeypatch: pytest.MonkeyPatch, end: str, says: str) -> PackageRecord:
    """Register the small network with something behind it, as one of runtime torch."""
    monkeypatch.setitem(ARCHITECTURES._parts, "ended", Ended)
    model = Ended(end=end).build().eval()
    with torch.no_grad():
        answer = model(image()[None])[0].tolist()
    folder = write_package(room.folder / "listed", name="listed")
    save_file(model.state_dict(), folder / "weights.safetensors")
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    fields["files"][0] = entry_of(folder, "weights.safetensors", "weights", "safetensors")
    for test in fields["selftests"]:
        del test["logits"]
        test[says] = [*answer]
    fields |= {
        "activation": says,
        "task": ENDS[end][1],
        "architecture": {"name": "ended", "parameters": {"end": end}},
        "explain": {"layers": [{"name": f"net.{LAYER}"}], "baseline": 0.0},
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(fields))
    return register(room.store, folder)


@pytest.mark.parametrize("end", ENDS)
def test_a_network_of_torch_is_explained_on_its_logits_too(
    room: Room, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    record = listed(room, monkeypatch, end, "probabilities")
    assert room.entry(record).failure is None
    runtime = room.shelf.get(record.package).runtime
    own = TorchRuntime(network(), (1, SIDE, SIDE), (LAYER,))
    found = run_alone(asked(), runtime).outputs
    expected = run_alone(asked(), own).outputs
    written = "written" in end
    if written and ENDS[end][1] == MULTICLASS:  # a softmax forgets what all logits share
        expected, found = (each - each[:, :1] for each in (expected, found))
    # behind a module they are the network's own
    close = 1e-4 if written else 1e-6
    torch.testing.assert_close(found, expected, rtol=close, atol=close)
    if written and ENDS[end][1] == MULTICLASS:
        return
    for name in ("grad_cam", "occlusion", "integrated_gradients"):
        ours, theirs = (
            attribute(settled(METHODS[name](), each), each, image(), logits(0, 2)).values
            for each in (runtime, own)
        )
        bound = 2e-3 * float(theirs.abs().max())
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=bound)


@pytest.mark.parametrize("end", ENDS)
def test_a_network_of_torch_whose_probabilities_pass_for_logits_is_refused(
    room: Room, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    record = listed(room, monkeypatch, end, "logits")
    assert "'activation: probabilities'" in room.refusal(record)
    failure = room.entry(record).failure
    assert failure is not None
    assert failure.facts["field"] == "/activation"


class Twice(nn.Module):
    """Uses one sigmoid within and at its end: without it, another network."""

    def __init__(self) -> None:
        super().__init__()
        self.squash = nn.Sigmoid()

    @override
    def forward(self, rows: Tensor) -> Tensor:
        return self.squash(3 * self.squash(rows))


def test_a_module_that_does_something_else_as_well_stays() -> None:
    model, rows = Twice(), torch.linspace(-2, 2, 6).view(2, 3)
    Activation(False).undo(model, rows[:1])
    torch.testing.assert_close(model(rows), 3 * rows.sigmoid(), rtol=1e-5, atol=1e-5)


class WrittenOver(nn.Module):
    """Goes on in place with what its sigmoid put out: the same tensor, another probability."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.squash = nn.Sigmoid()
        self.change = change

    @override
    def forward(self, rows: Tensor) -> Tensor:
        return self.change(self.squash(rows))


@pytest.mark.parametrize(
    "change", [lambda p: p.clamp_(1e-6, 1 - 1e-6), lambda p: p.mul_(0.9), lambda p: p.view(2, 3)]
)
def test_a_sigmoid_that_is_written_over_stays(change: Callable[[Tensor], Tensor]) -> None:
    rows = torch.linspace(-9, 9, 6).view(2, 3)
    expected = change(rows.sigmoid()).logit()
    model = WrittenOver(change)
    Activation(False).undo(model, rows)
    torch.testing.assert_close(model(rows), expected, rtol=1e-3, atol=1e-4)


class Paired(nn.Module):
    @override
    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows.sigmoid(), rows


def test_a_network_that_puts_out_more_than_probabilities_is_told_so() -> None:
    model, rows = Paired(), torch.zeros(1, 3)
    Activation(False).undo(model, rows)
    with pytest.raises(ModelUnavailable, match="one tensor"):
        model(rows)


def asked() -> Any:
    return (yield Forward(Clean(image()), outputs=True))


@pytest.mark.parametrize("end", ENDS)
def test_probabilities_that_are_taken_for_logits_are_refused_and_the_others_are_served(
    room: Room, end: str
) -> None:
    last, task = ENDS[end]
    record = ended(room, last, "logits", task)
    sound = room.register("sound")
    assert "activation: probabilities" in room.refusal(record)
    failure = room.entry(record).failure
    assert failure is not None
    assert failure.facts["field"] == "/activation"
    if "written" in end:
        least, greatest = failure.facts["least"], failure.facts["greatest"]
        assert isinstance(least, float)
        assert isinstance(greatest, float)
        assert 0 <= least < greatest <= 1
        assert failure.facts["add_up_to_one"] == (task == MULTICLASS)
    else:
        assert failure.facts["operator"] == end.title()
    assert room.entry(sound).state == "ready"


def test_logits_that_happen_to_lie_within_0_and_1_are_served(room: Room) -> None:
    """On its self-tests the network says no more than that; on what is far brighter it does."""

    def tame(model: nn.Module) -> None:
        with torch.no_grad():
            model.get_parameter("head.weight").mul_(1e-2)
            model.get_parameter("head.bias").fill_(0.5)

    record = room.register(break_weights=tame)
    assert room.entry(record).state == "ready"
    tests = room.shelf.get(record.package).manifest.selftests
    assert all(0 < each < 1 for test in tests for each in test.logits)


@pytest.mark.parametrize(("last", "task"), [(nn.Identity(), MULTICLASS), (Odd(), MULTICLASS)])
def test_what_is_no_probability_is_refused_where_the_manifest_says_so(
    room: Room, last: nn.Module, task: str
) -> None:
    share = [1 / len(CLASSES)] * len(CLASSES)
    tests = [{"title": "plain", "input": "plain.dcm", "probabilities": share, "tolerance": 1}]
    record = ended(room, last, "probabilities", task, selftests=tests)
    assert "'activation: logits'" in room.refusal(record)
    failure = room.entry(record).failure
    assert failure is not None
    assert failure.facts["field"] == "/activation"


def test_a_wrong_probability_fails_its_self_test(room: Room) -> None:
    tests = [
        {"title": "plain", "input": "plain.dcm", "probabilities": [0.5] * 3, "tolerance": 0.01}
    ]
    record = ended(room, nn.Sigmoid(), "probabilities", ENDS["sigmoid"][1], selftests=tests)
    assert "self-test" in room.refusal(record)


@pytest.mark.parametrize("exclusive", [False, True])
def test_logits_are_the_inverse_and_stay_finite_where_probabilities_were_rounded(
    exclusive: bool,
) -> None:
    truth = torch.linspace(-12, 12, 40, dtype=torch.float64).reshape(20, 2)
    made = truth.softmax(1) if exclusive else truth.sigmoid()
    found = Activation(exclusive).logits(made)
    expected = np.log(made.numpy()) if exclusive else truth.numpy()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)

    certain = torch.tensor([[0.0, 1.0]], requires_grad=True)
    given = Activation(exclusive).logits(certain)
    (gradient,) = torch.autograd.grad(given.sum(), certain)
    assert given.isfinite().all()
    assert gradient.isfinite().all()
    again = Activation(exclusive).probabilities(given)
    torch.testing.assert_close(again, certain.detach(), rtol=0, atol=1e-7)


def test_a_model_on_a_server_is_read_as_logits_too() -> None:
    """The small network's five logits, as a server's probabilities."""
    net, shape = small_net(dtype=torch.float32), (1, 20, 16)
    picture = image_for(dtype=torch.float32)
    content = onnx_of(nn.Sequential(net, nn.Sigmoid()).eval(), picture)
    words = Remote(endpoint="lab", model="chest", input="image", output="logits")
    with serving(InferenceServer(content)) as server:
        runtime = RemoteRuntime(
            Server(server.url, words, 5.0), words, "lab", shape, ending=Activation(False)
        )
        runtime.check()

        def plan() -> Any:
            return (yield Forward(Clean(picture), logits(0, 1, 4)))

        scores = run_alone(plan(), runtime).scores
    with torch.no_grad():
        expected = net(picture[None])[:, [0, 1, 4]]
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-3)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"task": "regression"}, "classifications, segmentations"),
    ({"activation": "logits"}, "each self-test needs 'logits'"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_a_manifest_whose_words_do_not_go_together_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = write_onnx_package(tmp_path / "package")
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    for test in fields["selftests"]:
        test["probabilities"] = [0.5 for _ in test.pop("logits")]
    fields["activation"] = "probabilities"
    assert Manifest.model_validate(fields).activation == "probabilities"
    if changes.get("task") == "regression":
        values = [{"key": key, "label": key, "unit": "mm"} for key in CLASSES]
        fields["outputs"] = [{"values": values}]
    with pytest.raises(ValidationError, match=words):
        Manifest.model_validate(fields | changes)
