"""Whole networks, as both exporters and the quantizer write them: outputs and gradients."""

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnxruntime import quantization
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from tests.support.engine import logits, through
from tests.support.exported import onnx_of
from tests.support.graphs import model_of, network_of, on_onnxruntime
from tests.support.small_model import NETWORK
from workers.architectures.base import ARCHITECTURES
from workers.methods.saliency import Saliency
from workers.runtimes.graph.operators.base import UnsupportedGraph
from workers.runtimes.graph.read import read_model
from workers.runtimes.onnx import OnnxRuntime
from workers.scheduler import Scheduler

SIDE = 32


class UNet(nn.Module):
    """Two levels, with a skip, transposed convolution and interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4, affine=True))
        self.second = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.LeakyReLU())
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.last = nn.Conv2d(16, 3, 1)

    @override
    def forward(self, image: Tensor) -> Tensor:
        fine = functional.gelu(self.first(image))
        coarse = self.second(fine)
        smooth = functional.interpolate(coarse, scale_factor=2, mode="bilinear")
        return self.last(torch.cat([fine, self.up(coarse), smooth], 1))


class Mobile(nn.Module):
    """What small classifiers are made of: depth-wise convolutions, hard swish, squeezing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish())
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.pool = nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)
        self.head = nn.Linear(8, 3)

    @override
    def forward(self, image: Tensor) -> Tensor:
        features = functional.relu6(self.depth(self.stem(image)))
        features = self.pool(features * self.squeeze(features))
        return self.head(features.mean((2, 3)))


def architecture(name: str, **parameters: Any) -> Callable[[], nn.Module]:
    return lambda: ARCHITECTURES[name].model_validate(parameters).build()


SMALL: Mapping[str, Any] = {"channels": 1, "classes": 3, "image": [SIDE, SIDE], "width": 16}
NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "residual_cnn": architecture("residual_cnn", **NETWORK),
    "vit": architecture("vit", **SMALL, patch=8, depth=2, heads=2),
    "swin": architecture("swin", **SMALL, patch=2, depths=[2, 2], heads=[2, 2], window=4),
    "unet": UNet,
    "mobile": Mobile,
}


def built(name: str) -> nn.Module:
    torch.manual_seed(3)
    return NETWORKS[name]().eval().requires_grad_(requires_grad=False)


def image(rows: int = 2) -> Tensor:
    return torch.randn(rows, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def exported(model: nn.Module, *, dynamo: bool, opset: int) -> bytes:
    """Return a network as ONNX, for any number of rows."""
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["out"]}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not dynamo:
            axes = {"image": {0: "rows"}, "out": {0: "rows"}}
            torch.onnx.export(
                model,
                (image(),),
                file,
                dynamo=False,
                opset_version=opset,
                dynamic_axes=axes,
                **names,
            )
            return file.getvalue()
        rows = torch.export.Dim("rows", min=1, max=64)
        program = torch.onnx.export(
            model,
            (image(),),
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=({0: rows},),
            verbose=False,
            **names,
        )
    assert program is not None
    written: bytes = program.model_proto.SerializeToString()
    return written


def gradient(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    outputs = model(x)
    weights = torch.linspace(-1, 1, outputs[0].numel()).view_as(outputs[0])
    (found,) = torch.autograd.grad((outputs * weights).sum(), [x])
    return found


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """Attention written out, as most published transformers have it."""
    weights = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    return (weights if attn_mask is None else weights + attn_mask).softmax(-1) @ value


@pytest.mark.parametrize(
    ("name", "dynamo", "opset"),
    [
        ("residual_cnn", False, 17),
        ("mobile", False, 11),
        ("mobile", False, 17),
        ("unet", False, 11),
        ("unet", False, 17),
        ("unet", True, 18),
        ("vit", False, 14),
        ("vit", False, 20),
        ("vit", True, 20),
        ("swin", False, 11),
        ("swin", False, 13),
        ("swin", False, 14),
        ("swin", False, 17),
        ("swin", False, 20),
        ("swin", True, 18),
    ],
)
def test_an_exported_network_has_the_outputs_and_gradients_of_the_network(
    name: str, dynamo: bool, opset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what torch's exporters cannot do: with `dynamo`, fused attention over windows; without
    # it, fused attention before opset 14
    if dynamo or opset < 14:
        monkeypatch.setattr(functional, "scaled_dot_product_attention", plain_attention)
    model = built(name)
    written = exported(model, dynamo=dynamo, opset=opset)
    network = network_of(written)
    for rows in (1, 3):
        (expected,) = on_onnxruntime(written, {"image": image(rows).numpy()})
        np.testing.assert_allclose(network(image(rows)).numpy(), expected, rtol=1e-4, atol=1e-5)
    ours, theirs = gradient(network, image()), gradient(model, image())
    assert theirs.abs().max() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("opset", range(11, 21))
def test_a_file_of_every_opset_has_the_outputs_of_the_network(opset: int) -> None:
    model = built("mobile")
    network = network_of(exported(model, dynamo=False, opset=opset))
    torch.testing.assert_close(network(image()), model(image()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "dynamo", "fixed"),
    [
        ("residual_cnn", False, False),
        ("residual_cnn", True, False),
        ("vit", False, False),
        ("vit", False, True),
    ],
)
def test_what_an_exporter_wrote_is_admitted_with_the_gradient_of_the_network(
    name: str, dynamo: bool, *, fixed: bool
) -> None:
    """Beside a session of onnxruntime, by agreement on trial images."""
    model, shape = built(name), tuple(image(1)[0].shape)
    written = (
        onnx_of(model, image(1)[0], fixed=True)
        if fixed
        else exported(model, dynamo=dynamo, opset=20)
    )
    runtime = OnnxRuntime(read_model(written), shape)
    assert runtime.probed.stood_in
    assert runtime.probed.mixes_rows is fixed  # a row at a time
    method = Saliency()
    (ours,) = through(Scheduler(), runtime, method.plan(image(1)[0], logits(1)))
    x = image(1).requires_grad_()
    (theirs,) = torch.autograd.grad(model(x)[0, 1], [x])
    torch.testing.assert_close(ours.values[0], theirs[0], rtol=1e-3, atol=1e-5)


def test_a_quantized_network_has_the_outputs_of_its_file_and_a_gradient_through_its_ranges(
    tmp_path: Path,
) -> None:
    plain, quantized = tmp_path / "plain.onnx", tmp_path / "int8.onnx"
    model = built("residual_cnn")
    plain.write_bytes(exported(model, dynamo=False, opset=17))

    class Images(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"image": image(4).numpy()}]

        @override
        def get_next(self) -> dict[str, Any] | None:
            return self.left.pop() if self.left else None

    quantization.quantize_static(
        plain, quantized, Images(), quant_format=quantization.QuantFormat.QDQ, per_channel=True
    )
    written = quantized.read_bytes()
    nodes = [node.op_type for node in onnx.load_from_string(written).graph.node]
    assert "QuantizeLinear" in nodes
    assert "Relu" not in nodes  # they are in the ranges
    network = network_of(written)
    (expected,) = on_onnxruntime(written, {"image": image().numpy()})
    span = expected.max() - expected.min()
    np.testing.assert_allclose(network(image()).numpy(), expected, atol=0.02 * span)
    ours, theirs = gradient(network, image(3)), gradient(model, image(3))
    together = torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))
    assert together[0, 1] > 0.9  # rounding moves some rectifiers, no more


def test_a_channels_last_graph_has_the_gradient_of_its_values() -> None:
    random = np.random.default_rng(2)
    w = random.normal(size=(4, 2, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "w"], ["features"], auto_pad="SAME_UPPER"),
        helper.make_node("Transpose", ["features"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Relu", ["last"], ["active"]),
        helper.make_node("ReduceMean", ["active"], ["out"], axes=[1, 2], keepdims=0),
    ]
    x = random.normal(size=(2, 5, 6, 2)).astype(np.float32)
    model = model_of(nodes, [("image", x)], ["out"], [numpy_helper.from_array(w, "w")])
    written = model.SerializeToString()
    network = network_of(written)
    (expected,) = on_onnxruntime(written, {"image": x})
    np.testing.assert_allclose(network(torch.from_numpy(x)).numpy(), expected, atol=1e-5)
    wide = torch.from_numpy(x).double().requires_grad_()
    torch.autograd.gradcheck(network.double(), [wide], fast_mode=True)


def test_a_graph_of_several_inputs_has_a_gradient_for_each() -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Concat", ["features", "table"], ["all"], axis=1),
        helper.make_node("MatMul", ["all", "w"], ["product"]),
        helper.make_node("Tanh", ["product"], ["out"]),
    ]
    random = np.random.default_rng(2)
    given = {
        "image": random.normal(size=(2, 3, 4, 4)).astype(np.float32),
        "table": random.normal(size=(2, 2)).astype(np.float32),
    }
    w = numpy_helper.from_array(random.normal(size=(5, 3)).astype(np.float32), "w")
    written = model_of(nodes, list(given.items()), ["out"], [w]).SerializeToString()
    network = network_of(written)
    (expected,) = on_onnxruntime(written, given)
    inputs = [torch.from_numpy(each) for each in given.values()]
    np.testing.assert_allclose(network(*inputs).numpy(), expected, atol=1e-5)
    wide = [each.double().requires_grad_() for each in inputs]
    torch.autograd.gradcheck(network.double(), wide, fast_mode=True)


def test_missing_operators_are_named_all_at_once() -> None:
    nodes = [
        helper.make_node("Loop", ["x", "x", "x"], ["y"], body=helper.make_graph([], "b", [], [])),
        helper.make_node("RandomNormalLike", ["y"], ["z"]),
        helper.make_node("Fused", ["z"], ["out"], domain="com.example"),
    ]
    model = model_of(nodes, [("x", np.zeros(2, np.float32))], ["out"])
    with pytest.raises(UnsupportedGraph, match=r"Loop, RandomNormalLike, com\.example\.Fused"):
        network_of(model.SerializeToString())


@pytest.mark.parametrize("opset", [9, 25])
def test_an_opset_that_is_not_interpreted_is_named(opset: int) -> None:
    node = helper.make_node("Relu", ["x"], ["out"])
    model = model_of([node], [("x", np.zeros(2, np.float32))], ["out"], opset=opset)
    with pytest.raises(UnsupportedGraph, match=f"opset {opset}"):
        network_of(model.SerializeToString())


def test_an_attribute_that_is_not_interpreted_is_named() -> None:
    node = helper.make_node("Relu", ["x"], ["out"], surprise=3)
    model = model_of([node], [("x", np.zeros(2, np.float32))], ["out"])
    with pytest.raises(UnsupportedGraph, match="'Relu' with attribute 'surprise'"):
        network_of(model.SerializeToString())


def test_a_function_of_the_file_is_written_out() -> None:
    inner = helper.make_function(
        "own",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    model = model_of(
        [helper.make_node("Twice", ["x"], ["out"], domain="own")],
        [("x", np.zeros(2, np.float32))],
        ["out"],
    )
    model.functions.append(inner)
    model.opset_import.append(helper.make_opsetid("own", 1))
    found = network_of(model.SerializeToString())(torch.tensor([1.0, 2.0]))
    assert found.tolist() == [2.0, 4.0]


def test_what_depends_on_constants_alone_is_computed_once() -> None:
    steps = numpy_helper.from_array(np.array([[3, -4]], np.int8), "steps")
    scale = numpy_helper.from_array(np.array(0.5, np.float32), "scale")
    nodes = [
        helper.make_node("DequantizeLinear", ["steps", "scale"], ["w"]),
        helper.make_node("Mul", ["x", "w"], ["out"]),
    ]
    model = model_of(nodes, [("x", np.zeros((1, 2), np.float32))], ["out"], [steps, scale])
    network = network_of(model.SerializeToString())
    assert [name for name, _ in network.named_modules() if name] == ["out"]
    assert [each.tolist() for each in network.parameters()] == [[[1.5, -2.0]]]


def test_a_size_that_no_machine_holds_is_refused() -> None:
    shape = numpy_helper.from_array(np.array([2**40], np.int64), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["many"]),
        helper.make_node("Add", ["x", "many"], ["out"]),
    ]
    model = model_of(nodes, [("x", np.zeros(1, np.float32))], ["out"], [shape])
    with pytest.raises(UnsupportedGraph, match="impossible size"):
        network_of(model.SerializeToString())
