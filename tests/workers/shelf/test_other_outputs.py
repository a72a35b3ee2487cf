"""A network whose outputs are not those that its manifest names never gets ready."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.exported import onnx_of, write_onnx_package
from tests.support.hospital import register
from tests.support.small_model import CLASSES, SIDE, network
from tests.workers.shelf.conftest import Room

BACKGROUND = {"key": "background", "label": "Background"}
LESION = {"key": "lesion", "label": "Lesion", "threshold": 0.5}


class Map(nn.Module):
    """Gives two logits at each pixel."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([image, -image], 1)


def tests_of(*logits: float) -> list[dict[str, Any]]:
    return [{"title": "one", "input": "plain.dcm", "logits": list(logits), "tolerance": 1.0}]


PACKAGES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str, str]] = {
    "classes": (
        network,
        {"outputs": [{"classes": [LESION]}], "selftests": tests_of(0.0)},
        "/outputs/0/classes",
        f"lists 1 class, and the network gives {len(CLASSES)}",
    ),
    "values": (
        network,
        {
            "task": "regression",
            "outputs": [{"values": [{"key": "age", "label": "Age"}]}],
            "selftests": tests_of(0.0),
        },
        "/outputs/0/values",
        f"lists 1 value, and the network gives {len(CLASSES)}",
    ),
    "channels of a segmentation": (
        Map,
        {
            "task": "segmentation",
            "outputs": [{"decoding": "voxel_regions", "classes": [LESION]}],
            "selftests": tests_of(0.0),
        },
        "/outputs/0/classes",
        "lists 1 class, and the network gives 2",
    ),
    "a segmentation as a classification": (
        Map,
        {"outputs": [{"classes": [BACKGROUND, LESION]}], "selftests": tests_of(0.0, 0.0)},
        "/outputs",
        "one number for each output",
    ),
}


@pytest.mark.parametrize("case", PACKAGES)
def test_outputs_that_the_manifest_does_not_name_are_told_with_both_numbers(
    room: Room, case: str
) -> None:
    make, changes, field, words = PACKAGES[case]
    files = {"model.onnx": onnx_of(make(), torch.zeros(1, SIDE, SIDE))}
    bad = register(room.store, write_onnx_package(room.folder / "other", files, **changes))
    sound = room.register()
    assert words in room.refusal(bad)
    failure = room.entry(bad).failure
    assert failure is not None
    assert failure.facts["field"] == field
    assert room.shelf.ready() == (sound.package,)
