"""Packages begun from ONNX: which input is the image, and how its axes lie."""

import math

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


def write_transformer(path, places=None, edge=32, softmax="Softmax", joined=("lifted",)):
    """Write the beginning of a transformer: patches, places added to them, and attention.

    Of what is `joined`, "lifted" are the patches' tokens.
    """
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, edge, 48])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)
    tensors = {"kernels": [16, 1, 8, 8], "places": places or [1, 25, 16], "bias": [16]}
    tensors |= {each: [1, 1, 16] for each in joined if each != "lifted"}
    join = helper.make_node("Concat", joined, ["row"], axis=1)
    nodes = [
        helper.make_node(
            "Conv", ["image", "kernels"], ["patches"], kernel_shape=[8, 8], strides=[8, 8]
        ),
        helper.make_node("Add", ["patches", "bias"], ["lifted"]),
        join if len(joined) > 1 else helper.make_node("Identity", joined, ["row"]),
        helper.make_node("Add", ["row", "places"], ["tokens"]),
        helper.make_node(softmax, ["tokens"], ["weights"]),
        helper.make_node("MatMul", ["weights", "tokens"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [image],
        [scores],
        [
            helper.make_tensor(k, TensorProto.FLOAT, v, [0.0] * math.prod(v))
            for k, v in tensors.items()
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.parametrize(
    ("places", "joined", "prefix"),
    [
        ([1, 25, 16], ("class", "lifted"), 1),
        ([24, 16], ("lifted",), 0),
        ([1, 29, 16], ("class", "registers", "lifted"), 5),
    ],
)
def test_patches_and_places_tell_where_tokens_lie(imported, tmp_path, places, joined, prefix):
    fields, said = imported(write_transformer(tmp_path / "m.onnx", places, joined=joined))
    assert fields["tokens"] == {"prefix": prefix, "grid": [4, 6]}
    assert f"the graph puts {prefix or 'none'}" in said["/tokens"]


@pytest.mark.parametrize(
    ("places", "joined"),
    [
        ([1, 24, 16], ("class", "lifted")),
        ([1, 25, 16], ("lifted", "class")),
        ([1, 26, 16], ("first", "lifted", "last")),
        ([1, 25, 16], ("lifted",)),
    ],
    ids=["places of patches alone", "class token last", "some last", "no join"],
)
def test_a_prefix_that_the_graph_does_not_make_plain_is_asked_for(
    imported, tmp_path, places, joined
):
    fields, said = imported(write_transformer(tmp_path / "m.onnx", places, joined=joined))
    assert "tokens" not in fields
    assert "a grid of 4 x 6; how many tokens come before" in said["/tokens"]


@pytest.mark.parametrize("options", [{"places": [1, 23, 16]}, {"places": [25, 8]}, {"edge": "h"}])
def test_of_attention_whose_tokens_are_not_plain_they_are_asked_for(imported, tmp_path, options):
    fields, said = imported(write_transformer(tmp_path / "m.onnx", **options))
    assert "tokens" not in fields
    assert "say where its tokens lie" in said["/tokens"]


def test_a_graph_without_attention_is_asked_nothing_of_tokens(imported, tmp_path):
    fields, said = imported(write_transformer(tmp_path / "m.onnx", softmax="Relu"))
    assert "tokens" not in fields
    assert "/tokens" not in said
