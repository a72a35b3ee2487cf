"""A package begun by ``whylight models import`` and completed by hand is served."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from service.command.main import main
from service.drafts.base import listed
from tests.support.hospital import register
from tests.support.small_model import MEAN, SIDE, STD, picture, write_image
from tests.workers.shelf.conftest import Room

WEIGHTS = np.array([[2.0, -1.0], [0.5, 0.25], [-0.75, 1.5]], np.float32)
"""Of the image's mean and two numbers, for two classes."""

VALUES = {"age": 40.0, "weight": 80.0}
PERSON: dict[str, Any] = {
    "version": "1.0.0",
    "publisher": "Tests",
    "license": "Apache-2.0",
    "intended_use": "Tests.",
    "not_for": "Anything else.",
    "task": "classification-multilabel",
}


def write_graph(path: Path) -> Path:
    """Write a graph of numbers first, and an image whose channels come last."""
    inputs = [
        helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["n", 2]),
        helper.make_tensor_value_info("input_1", TensorProto.FLOAT, ["n", SIDE, SIDE, 1]),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["input_1"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Concat", ["mean", "numbers"], ["all"], axis=1),
        helper.make_node("MatMul", ["all", "weights"], ["logits"]),
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(
        nodes, "graph", inputs, [logits], [numpy_helper.from_array(WEIGHTS, "weights")]
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def completed(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Say what the draft lacks, with the logits of the graph's own formula."""
    stored = picture()
    tests = []
    for name, inverted in (("plain", False), ("inverted", True)):
        write_image(folder / f"{name}.dcm", stored, inverted=inverted)
        fields["files"].append(listed(folder / f"{name}.dcm", "selftest", "dicom"))
        tests.append(
            {"title": name, "input": f"{name}.dcm", "values": {**VALUES}, "tolerance": 1e-3}
        )
    image, numbers = fields["inputs"]
    image["accept"] = {"modalities": ["CR"]}
    image["steps"] = [
        {"name": "invert_monochrome1"},
        *image["steps"],
        {"name": "normalize", "parameters": {"mean": [MEAN], "std": [STD]}},
    ]
    scaled = {"mean": 50.0, "std": 20.0, "baseline": 50.0, "minimum": 0.0, "maximum": 120.0}
    numbers["variables"] = [{"key": key, "label": key, **scaled} for key in VALUES]
    keys = ("small", "large")
    fields["outputs"][0]["classes"] = [{"key": key, "label": key, "threshold": 0.5} for key in keys]
    seen = [float((stored.astype(np.float64).mean() - MEAN) / STD)]
    logits = [*seen, *((each - 50) / 20 for each in VALUES.values())] @ WEIGHTS.astype(np.float64)
    return (
        fields
        | PERSON
        | {"selftests": [each | {"logits": [*map(float, logits)]} for each in tests]}
    )


def test_a_graph_of_channels_last_with_numbers_before_the_image(room: Room) -> None:
    folder = room.folder / "begun"
    assert main(["models", "import", str(write_graph(room.folder / "m.onnx")), str(folder)]) == 3
    path = folder / "model.yaml"
    fields = completed(yaml.safe_load(path.read_text()), folder)
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    entry = room.entry(register(room.store, folder))
    assert entry.failure is None
    assert entry.state == "ready"
    assert {"occlusion", "integrated_gradients"} <= set(entry.methods)
