"""A network that does not take the prepared input: the field and the fix are told, others live."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper
from torch import Tensor, nn

from service.domain.catalog import ModelEntry
from service.packages import PackageRecord
from tests.support.exported import onnx_of, write_onnx_package
from tests.support.hospital import register
from tests.support.small_model import CLASSES, SIDE, network
from tests.workers.shelf.conftest import Room
from workers.loading import Loader
from workers.shelf import Shelf


class Flat(nn.Module):
    """Takes one edge alone, and its export does not say so."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear((SIDE + 16) ** 2, len(CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(image.flatten(1))


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, image: Tensor) -> Tensor:
        return self.inner(image.permute(0, 3, 1, 2))


class Bytes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, image: Tensor) -> Tensor:
        return self.inner(image.float() / 255)


def of_any_edge(content: bytes) -> bytes:
    """Return a graph that says of its rows and columns that they may be any."""
    model = onnx.load_from_string(content)
    for axis in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_param = "edge"
    written: bytes = model.SerializeToString()
    return written


def half() -> bytes:
    """Return a graph that takes 16-bit floats."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT16, ["n", 1, SIDE, SIDE])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT16, ["n", 1])
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["scores"]),
    ]
    graph = helper.make_graph(nodes, "half", [image], [scores])
    opset = [helper.make_opsetid("", 17)]
    written: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return written


def of_rows(content: bytes, rows: int) -> bytes:
    """Return a graph that takes batches of `rows` alone."""
    model = onnx.load_from_string(content)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = rows
    written: bytes = model.SerializeToString()
    return written


GRAPHS: dict[str, tuple[Callable[[], bytes], dict[str, Any], str, list[str]]] = {
    "three channels": (
        lambda: onnx_of(network(channels=3), torch.zeros(3, SIDE, SIDE)),
        {},
        "/inputs/0/steps",
        [f"float of shape (N, 3, {SIDE}, {SIDE})", f"(N, 1, {SIDE}, {SIDE})", "3 values each"],
    ),
    "another edge, declared": (
        lambda: onnx_of(Flat(), torch.zeros(1, SIDE + 16, SIDE + 16)),
        {},
        "/inputs/0/steps",
        [f"(N, 1, {SIDE + 16}, {SIDE + 16})", f"(N, 1, {SIDE}, {SIDE})", "'resize'"],
    ),
    "another edge, undeclared": (
        lambda: of_any_edge(onnx_of(Flat(), torch.zeros(1, SIDE + 16, SIDE + 16))),
        {},
        "/inputs/0/steps",
        ["(N, 1, any, any)", "breaks within", "'resize'", "'x.shape[0]'"],
    ),
    "batches of two": (
        lambda: of_rows(onnx_of(network(), torch.zeros(1, SIDE, SIDE), fixed=True), 2),
        {},
        "/files",
        ["batches of 2", "Export it for any number of rows, or for one"],
    ),
    "channels last": (
        lambda: onnx_of(ChannelsLast(), torch.zeros(SIDE, SIDE, 1)),
        {},
        "/inputs/0/layout",
        [f"(N, {SIDE}, {SIDE}, 1)", "layout: NHWC"],
    ),
    "channels first": (
        lambda: onnx_of(network(), torch.zeros(1, SIDE, SIDE)),
        {"layout": "NHWC"},
        "/inputs/0/layout",
        [f"(N, {SIDE}, {SIDE}, 1)", "Leave out 'layout: NHWC'"],
    ),
    "float16": (half, {}, "/files", ["float16 of shape", "float32"]),
    "uint8": (
        lambda: onnx_of(Bytes(), torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)),
        {},
        "/files",
        ["uint8 of shape", "float32"],
    ),
}


def rewrite(path: Path, given: dict[str, Any]) -> None:
    """Replace fields of the one input of a ``model.yaml``."""
    manifest = yaml.safe_load(path.read_text())
    manifest["inputs"][0] |= given
    path.write_text(yaml.safe_dump(manifest, sort_keys=False))


def refused(entry: ModelEntry, field: str, words: list[str]) -> None:
    assert entry.state == "unavailable"
    assert entry.failure is not None
    assert entry.failure.code == "invalid_package"
    assert entry.failure.facts["field"] == field
    for word in words:
        assert word in entry.failure.detail


def restarted(room: Room) -> Shelf:
    """Return the shelf of a worker that starts with the packages in the store."""
    old = room.shelf._loader
    loader = Loader(old._scheduler, old._device, old._slots, old._scratch)
    return Shelf(room.packages, loader, room.folder / "anew", room.shelf._log, 1 << 30)


@pytest.mark.parametrize("case", GRAPHS)
def test_a_graph_that_does_not_take_the_input_says_what_to_mend_and_the_worker_lives(
    room: Room, case: str
) -> None:
    make, given, field, words = GRAPHS[case]
    folder = write_onnx_package(room.folder / "graph", {"model.onnx": make()})
    if given:
        rewrite(folder / "model.yaml", given)
    poison: PackageRecord = register(room.store, folder)
    sound = room.register()
    refused(room.entry(poison), field, words)
    again = restarted(room)
    again.sync()
    for shelf in (room.shelf, again):
        refused(shelf.entries()[poison.package], field, words)
        assert shelf.ready() == (sound.package,)
        with shelf.lent(sound.package, lambda: None) as model:
            assert model.runtime.probed.abilities


def half_size() -> dict[str, Any]:
    steps = [
        {"name": "resize", "parameters": {"size": [SIDE // 2, SIDE // 2]}},
        {"name": "normalize", "parameters": {"mean": [2048.0], "std": [1024.0]}},
    ]
    return {"inputs": [{"accept": {"modalities": ["CR"]}, "steps": steps}]}


TRANSFORMER: dict[str, Any] = {
    "architecture": "vit",
    "shape": {
        "classes": len(CLASSES),
        "image": [SIDE] * 2,
        "patch": 8,
        "width": 16,
        "depth": 1,
        "heads": 2,
    },
}
NETWORKS: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"shape": {"channels": 3}},
        ["'stem.0'", "3 channels, not 1", f"(N, 1, {SIDE}, {SIDE})", "3 values each"],
    ),
    (
        {**TRANSFORMER, "changes": half_size() | {"explain": {"baseline": 0.0}}},
        ["another shape than", f"(N, 1, {SIDE // 2}, {SIDE // 2})", "'resize'"],
    ),
]


@pytest.mark.parametrize(("package", "words"), NETWORKS)
def test_a_network_of_torch_that_does_not_take_the_input_names_the_layer_and_the_fix(
    room: Room, package: dict[str, Any], words: list[str]
) -> None:
    sound = room.register("sound")
    bad = room.register("bad", **package)
    refused(room.entry(bad), "/inputs/0/steps", words)
    assert room.shelf.ready() == (sound.package,)
