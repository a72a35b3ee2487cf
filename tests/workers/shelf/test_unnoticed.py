"""What the self-tests of a package would not notice is found by trial and told."""

from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from service.packages import PackageRecord
from tests.support.hospital import register
from tests.support.phantom_dicom import encoded, of_pixels
from tests.support.small_model import (
    CLASSES,
    MEAN,
    SIDE,
    STD,
    entry_of,
    model_input,
    network,
    picture,
    write_package,
)
from tests.workers.shelf.conftest import Room

STEPS = "/inputs/0/steps"
INVERT = {"name": "invert_monochrome1"}
NORMALIZE = {"name": "normalize", "parameters": {"mean": [MEAN], "std": [STD]}}


def told(room: Room, record: PackageRecord) -> dict[str, str]:
    entry = room.entry(record)
    assert entry.state == "ready", entry.failure
    return dict(entry.unnoticed)


def logits() -> list[float]:
    with torch.no_grad():
        found: list[float] = network()(model_input(picture())[None])[0].tolist()
    return found


def plain_test() -> list[dict[str, Any]]:
    return [{"title": "plain", "input": "plain.dcm", "logits": logits(), "tolerance": 1e-4}]


def test_of_two_tests_that_every_step_changes_nothing_is_told(room: Room) -> None:
    assert told(room, room.register()) == {}


def test_a_step_that_changes_no_tests_image_is_told_with_what_to_add(room: Room) -> None:
    found = told(room, room.register(changes={"selftests": plain_test()}))
    ((field, why),) = found.items()
    assert field == f"{STEPS}/0"
    assert "'invert_monochrome1' were left out. Add one whose image it changes" in why


def test_a_step_that_finds_its_image_as_it_would_make_it_is_told(room: Room) -> None:
    resize = {"name": "resize", "parameters": {"size": [SIDE, SIDE]}}
    inputs = [{"accept": {"modalities": ["CR"]}, "steps": [INVERT, resize, NORMALIZE]}]
    assert list(told(room, room.register(changes={"inputs": inputs}))) == [f"{STEPS}/1"]


def test_self_tests_that_no_request_could_bring_are_told(room: Room) -> None:
    inputs = [{"accept": {"modalities": ["MG"]}, "steps": [INVERT, NORMALIZE]}]
    ((field, why),) = told(room, room.register(changes={"inputs": inputs})).items()
    assert field == "/inputs/0/accept"
    assert "(modalities)" in why


def test_a_step_whose_loss_moves_no_answer_by_the_tolerance_is_told(room: Room) -> None:
    """The image is another one all the same: it is the answers that tell."""

    def faint(model: nn.Module) -> None:
        with torch.no_grad():
            model.get_parameter("head.weight").mul_(1e-6)
            model.get_parameter("head.bias").copy_(torch.tensor([-1.0, 2.0, 5.0]))

    assert list(told(room, room.register(break_weights=faint))) == [f"{STEPS}/0"]


@pytest.mark.parametrize("alike", [True, False])
def test_outputs_that_could_be_exchanged_are_told_by_name(room: Room, alike: bool) -> None:
    def copied(model: nn.Module) -> None:
        if alike:
            with torch.no_grad():
                for name in ("head.weight", "head.bias"):
                    parameter = model.get_parameter(name)
                    parameter[1] = parameter[0]

    found = told(room, room.register(break_weights=copied))
    first, second, _ = CLASSES
    assert list(found) == (["/outputs/0/classes"] if alike else [])
    if alike:
        assert f"'{first}' and '{second}'. Add" in found["/outputs/0/classes"]


@pytest.mark.parametrize("gray", [True, False])
def test_color_whose_order_no_test_shows_is_told(room: Room, gray: bool) -> None:
    """A self-test in color whose three channels are alike says nothing of their order."""
    stored = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    stored[..., 0] //= 4
    if gray:
        stored[..., 1:] = stored[..., :1]
    folder = write_package(room.folder / "color", name="color", shape={"channels": 3})
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    model = network(channels=3)
    save_file(model.state_dict(), folder / "weights.safetensors")
    (folder / "plain.dcm").write_bytes(encoded(of_pixels(stored)))
    (folder / "inverted.dcm").unlink()
    with torch.no_grad():
        image = (torch.from_numpy(stored).movedim(2, 0).float() - 100) / 50
        answer = model(image[None])[0].tolist()
    fields["files"] = [
        entry_of(folder, "weights.safetensors", "weights", "safetensors"),
        entry_of(folder, "plain.dcm", "selftest", "dicom"),
    ]
    steps = [{"name": "normalize", "parameters": {"mean": [100.0] * 3, "std": [50.0] * 3}}]
    accept = {"modalities": ["CR"], "photometric_interpretations": ["RGB"]}
    fields["inputs"] = [{"accept": accept, "steps": steps}]
    fields["selftests"] = [
        {"title": "plain", "input": "plain.dcm", "logits": answer, "tolerance": 1e-3}
    ]
    (folder / "model.yaml").write_text(yaml.safe_dump(fields))
    found = told(room, register(room.store, folder))
    assert list(found) == (["/inputs/0"] if gray else [])
