"""A file is read within bounds, and with nothing from outside of its package."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from service.errors.models import InvalidPackage, ModelUnavailable
from tests.support.graphs import model_of
from workers.runtimes.graph import read
from workers.runtimes.graph.network import Network
from workers.runtimes.graph.read import demand_finite, read_graph, read_model

VALUES = np.array([1.5, -2.0, 4.0], np.float32)
DATA = "weights.bin"


def stored(**places: str) -> Any:
    """Return a tensor whose numbers lie elsewhere."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in places.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(**places: str) -> bytes:
    """Return ``x + w``, with `w` elsewhere."""
    node = helper.make_node("Add", ["x", "w"], ["out"])
    return written(model_of([node], [("x", VALUES)], ["out"], [stored(**places)]))


def written(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "package"
    inside.mkdir()
    (inside / DATA).write_bytes(b"----" + VALUES.tobytes())
    (tmp_path / "outside.bin").write_bytes(VALUES.tobytes())
    return inside


def test_external_data_of_the_package_is_brought_in(folder: Path) -> None:
    found = read_model(model(location=DATA, offset="4", length="12"), folder, [DATA])
    network = Network(read_graph(found))
    assert network(torch.zeros(3)).tolist() == VALUES.tolist()
    assert not found.graph.initializer[0].external_data  # nothing is left to follow


@pytest.mark.parametrize(
    "location",
    ["../outside.bin", "/etc/hostname", "sub/../../outside.bin", "", "./weights.bin", "other.bin"],
)
def test_a_file_that_is_none_of_the_packages_is_refused(folder: Path, location: str) -> None:
    (folder / "other.bin").write_bytes(VALUES.tobytes())  # there, but not listed
    with pytest.raises(InvalidPackage, match="none of the package's"):
        read_model(model(location=location), folder, [DATA])


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname"])
def test_a_listed_path_that_leads_out_is_refused_too(folder: Path, location: str) -> None:
    with pytest.raises(InvalidPackage, match="none of the package's"):
        read_model(model(location=location), folder, [location])


def test_a_link_is_refused(folder: Path) -> None:
    (folder / DATA).unlink()
    (folder / DATA).symlink_to(folder.parent / "outside.bin")
    with pytest.raises(InvalidPackage, match="none of the package's"):
        read_model(model(location=DATA, length="12"), folder, [DATA])


def test_a_folder_that_is_a_link_is_refused(folder: Path) -> None:
    (folder / "sub").symlink_to(folder.parent)
    with pytest.raises(InvalidPackage, match="none of the package's"):
        read_model(model(location="sub/outside.bin"), folder, ["sub/outside.bin"])


@pytest.mark.parametrize(
    "places", [{"offset": "8", "length": "12"}, {"offset": "-4"}, {"length": "-1"}, {"offset": "x"}]
)
def test_a_place_that_the_file_does_not_have_is_refused(
    folder: Path, places: dict[str, str]
) -> None:
    with pytest.raises(InvalidPackage, match="external data"):
        read_model(model(location=DATA, **places), folder, [DATA])


def test_without_a_package_there_is_no_external_data() -> None:
    with pytest.raises(InvalidPackage, match="none of the package's"):
        read_model(model(location=DATA))


def test_data_that_hides_in_a_branch_or_a_function_is_found(folder: Path) -> None:
    hidden = helper.make_node("Constant", [], ["c"], value=stored(location="../outside.bin"))
    branch = helper.make_graph([hidden], "branch", [], [onnx.ValueInfoProto(name="c")])
    choice = helper.make_node("If", ["x"], ["out"], then_branch=branch, else_branch=branch)
    deep = model_of([choice], [("x", np.array([True]))], ["out"])
    with pytest.raises(InvalidPackage, match="none of the package's"):
        read_model(written(deep), folder, [DATA])
    call = model_of([helper.make_node("F", ["x"], ["out"], domain="own")], [("x", VALUES)], ["out"])
    call.functions.append(
        helper.make_function("own", "F", ["a"], ["c"], [hidden], [helper.make_opsetid("", 17)])
    )
    with pytest.raises(InvalidPackage, match="none of the package's"):
        read_model(written(call), folder, [DATA])


def test_functions_that_multiply_are_counted_before_they_are_written_out() -> None:
    """Thirty functions that call each other twice stand for a thousand million nodes."""
    bomb = model_of(
        [helper.make_node("F0", ["x"], ["out"], domain="own")], [("x", VALUES)], ["out"]
    )
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for k in range(30):
        inner = ("Relu", "") if k == 29 else (f"F{k + 1}", "own")
        nodes = [
            helper.make_node(inner[0], ["a"], ["b"], domain=inner[1]),
            helper.make_node(inner[0], ["b"], ["c"], domain=inner[1]),
        ]
        bomb.functions.append(helper.make_function("own", f"F{k}", ["a"], ["c"], nodes, opset))
    with pytest.raises(InvalidPackage, match="more nodes than the 20000"):
        read_model(written(bomb))


def test_a_function_that_calls_itself_is_refused() -> None:
    node = helper.make_node("F", ["a"], ["c"], domain="own")
    loop = model_of([helper.make_node("F", ["x"], ["out"], domain="own")], [("x", VALUES)], ["out"])
    loop.functions.append(
        helper.make_function("own", "F", ["a"], ["c"], [node], [helper.make_opsetid("own", 1)])
    )
    with pytest.raises(InvalidPackage, match="cannot be read"):
        read_model(written(loop))


def test_a_graph_of_too_many_nodes_is_refused() -> None:
    nodes = [helper.make_node("Relu", [f"t{k}"], [f"t{k + 1}"]) for k in range(read.NODES + 1)]
    long = model_of(nodes, [("t0", VALUES)], [f"t{len(nodes)}"])
    with pytest.raises(InvalidPackage, match="more nodes"):
        read_model(written(long))


def test_a_model_that_is_too_large_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = model(location=DATA, offset="4", length="12")
    monkeypatch.setattr(read, "MODEL_BYTES", len(content) + 11)
    with pytest.raises(InvalidPackage, match="larger than"):
        read_model(content, folder, [DATA])
    monkeypatch.setattr(read, "MODEL_BYTES", len(content) - 1)
    with pytest.raises(InvalidPackage, match="larger than"):
        read_model(content, folder, [DATA])


def test_a_tensor_of_fewer_numbers_than_its_shape_makes_no_network() -> None:
    message = onnx.load_from_string(model())
    tensor = message.graph.initializer[0]
    tensor.data_location = TensorProto.DEFAULT
    tensor.dims[:] = [2**40]
    tensor.raw_data = VALUES.tobytes()
    with pytest.raises(ValueError, match="reshape"):
        read_graph(read_model(written(message)))


def weighed(value: float, kind: int, operator: str = "Mul", *, initializer: bool = True) -> Any:
    """Return a model of one operator on its input and a constant "scale" that holds a value."""
    scale = helper.make_tensor("scale", kind, [2], [1.0, value])
    nodes = [helper.make_node(operator, ["image", "scale"], ["logits"])]
    if not initializer:
        nodes.insert(0, helper.make_node("Constant", [], ["scale"], value=scale))
    given, said = (helper.make_tensor_value_info(n, kind, [1, 2]) for n in ("image", "logits"))
    graph = helper.make_graph(nodes, "g", [given], [said], [scale] if initializer else [])
    return helper.make_model(graph)


@pytest.mark.parametrize("initializer", [True, False])
@pytest.mark.parametrize("kind", sorted(read.FLOATS))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(value: float, kind: int, initializer: bool) -> None:
    demand_finite(weighed(2.0, kind, initializer=initializer))
    with pytest.raises(ModelUnavailable) as caught:
        demand_finite(weighed(value, kind, initializer=initializer))
    assert caught.value.pointer == "/files"
    assert caught.value.facts == {"tensors": ["scale"]}


def test_a_mask_may_be_infinite_but_holds_numbers() -> None:
    demand_finite(weighed(float("-inf"), TensorProto.FLOAT, "Add"))
    with pytest.raises(ModelUnavailable):
        demand_finite(weighed(float("nan"), TensorProto.FLOAT, "Add"))
    demand_finite(weighed(7, TensorProto.INT64))
