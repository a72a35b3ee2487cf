"""Packages begun from ONNX: which input is the image, and how its axes lie."""

import onnx
import pytest
from onnx import TensorProto, helper


def write_graph(path, **inputs):
    """Write a graph of these inputs' shapes, of 32-bit floats unless another type is named."""
    tensors = [
        helper.make_tensor_value_info(
            name, *(shape if isinstance(shape, tuple) else (TensorProto.FLOAT, shape))
        )
        for name, shape in inputs.items()
    ]
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)
    nodes = [helper.make_node("Flatten", [next(iter(inputs))], ["scores"])]
    graph = helper.make_graph(nodes, "graph", tensors, [scores])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.parametrize("size", [["rows", "columns"], [224, 192]])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_that_come_last_are_told_from_an_edge(imported, tmp_path, channels, size):
    fields, said = imported(write_graph(tmp_path / "m.onnx", image=["n", *size, channels]))
    (drafted,) = fields["inputs"]
    assert drafted["layout"] == "NHWC"
    resize = [{"name": "resize", "parameters": {"size": size}}] if size == [224, 192] else []
    assert drafted["steps"] == resize
    assert f"'n', {size[0]!r}" in said["/inputs/0/layout"]


@pytest.mark.parametrize("shape", [["n", 3, 224, 224], ["n", 1, 64, 3], ["n", "c", "h", "w"]])
def test_channels_that_come_first_are_left_there(imported, tmp_path, shape):
    fields, said = imported(write_graph(tmp_path / "m.onnx", image=shape))
    assert "layout" not in fields["inputs"][0]
    assert "/inputs/0/layout" not in said


def test_a_volume_whose_channels_come_last_is_told_to_be_turned(imported, tmp_path):
    fields, said = imported(write_graph(tmp_path / "m.onnx", image=["n", 32, 64, 64, 1]))
    assert (fields["inputs"][0]["kind"], fields["inputs"][0]["layout"]) == ("volume", "NCDHW")
    assert "Transpose" in said["/inputs/0/layout"]


def test_the_image_is_taken_wherever_it_stands_and_numbers_beside_it(imported, tmp_path):
    graph = write_graph(tmp_path / "m.onnx", age=["n", 2], image=["n", 1, 64, 64], dose=["n", 1])
    fields, said = imported(graph)
    image, *others = fields["inputs"]
    assert (image["name"], image["steps"][0]["parameters"]["size"]) == ("image", [64, 64])
    assert [(each["name"], each["kind"]) for each in others] == [
        ("age", "tabular"),
        ("dose", "tabular"),
    ]
    assert "'age'" in said["/inputs/1/variables"]
    assert "['n', 2]" in said["/inputs/1/variables"]
    assert "/inputs" not in said


def test_inputs_that_nothing_fills_are_told_by_name(imported, tmp_path):
    words = (TensorProto.INT64, ["n", 77])
    shapes = {"image": ["n", 1, 64, 64], "prior": ["n", 1, 64, 64], "words": words}
    fields, said = imported(write_graph(tmp_path / "m.onnx", **shapes))
    assert [each["name"] for each in fields["inputs"]] == ["image"]
    assert "prior ['n', 1, 64, 64], words ['n', 77]" in said["/inputs"]


def test_a_graph_without_an_image_has_none_made_up(imported, tmp_path):
    fields, said = imported(write_graph(tmp_path / "m.onnx", values=["n", 12]))
    assert "inputs" not in fields
    assert "values ['n', 12]" in said["/inputs"]
