"""Every operator gives what onnxruntime gives, and its derivative is that of its values."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.support.graphs import Case, network_of, on_onnxruntime
from workers.runtimes.graph.operators.base import find, keywords, known

RANDOM = np.random.default_rng(7)


def real(*shape: int, low: float = -2.0, high: float = 2.0) -> NDArray[np.float32]:
    """Return numbers of which no two are equal."""
    count = int(np.prod(shape))
    values = RANDOM.permutation(count) / max(count, 1) * (high - low) + low
    return (values + RANDOM.uniform(0.011, 0.019)).astype(np.float32).reshape(shape)


def whole(*values: Any) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def flags(*shape: int) -> NDArray[np.bool_]:
    return RANDOM.random(shape) < 0.5


def arithmetic() -> Iterator[Case]:
    plain = "Abs Asinh Atan Cos Cosh Erf Exp Neg Sin Sinh Tan"
    for name in plain.split():
        yield Case(name, [real(2, 3)])
    for name in ("Acos", "Asin", "Atanh"):
        yield Case(name, [real(2, 3, low=-0.9, high=0.9)])
    for name in ("Log", "Sqrt", "Reciprocal"):
        yield Case(name, [real(2, 3, low=0.2)])
    yield Case("Acosh", [real(2, 3, low=1.2, high=3)])
    for name in ("Ceil", "Floor", "Sign", "IsNaN"):
        yield Case(name, [real(2, 3)], smooth=False)
    yield Case("IsInf", [np.array([1, np.inf, -np.inf], np.float32)], smooth=False)
    infinite = np.array([1, np.inf, -np.inf], np.float32)
    yield Case("IsInf", [infinite], {"detect_negative": 0}, smooth=False)
    yield Case("Round", [np.array([0.5, 1.5, 2.5, -0.5, 0.7], np.float32)], smooth=False)
    for name in ("Add", "Sub", "Mul"):
        for opset in (11, 13, 17):
            yield Case(name, [real(2, 3, 1), real(3, 4)], opset=opset)
        yield Case(name, [whole(3, -7), whole(2)], changing=frozenset({0}))
    yield Case("Div", [real(2, 3), real(3, low=0.5)])
    yield Case("Div", [whole(7, -7, 5), whole(2)], changing=frozenset({0}))
    yield Case("Pow", [real(2, 3, low=0.3), real(3)])
    yield Case("Pow", [real(2, 3), np.array(2, np.int64)])
    yield Case("Mod", [whole(7, -7, 5), whole(3)], changing=frozenset({0}))
    yield Case("Mod", [real(2, 3), real(3, low=0.5)], {"fmod": 1})
    for name in ("Max", "Min", "Sum", "Mean"):
        yield Case(name, [real(2, 3), real(3), real(1, 3)])


def logic() -> Iterator[Case]:
    for name in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"):
        yield Case(name, [whole(1, 2, 3), whole(3, 2, 1)], changing=frozenset({0}), smooth=False)
        yield Case(name, [real(2, 3), real(3)], smooth=False)
    for name in ("And", "Or", "Xor"):
        yield Case(name, [flags(2, 3), flags(3)], changing=frozenset({0, 1}), smooth=False)
    yield Case("Not", [flags(2, 3)], changing=frozenset({0}), smooth=False)
    for name in ("BitwiseAnd", "BitwiseOr"):
        yield Case(name, [whole(6, 3), whole(5, 4)], opset=18, changing=frozenset({0}))
    yield Case("BitwiseNot", [whole(6, 3)], opset=18, changing=frozenset({0}))
    yield Case("Where", [flags(2, 3), real(2, 3), real(3)])
    yield Case("Cast", [real(2, 3)], {"to": TensorProto.INT64}, smooth=False)
    yield Case("Cast", [real(2, 3)], {"to": TensorProto.BOOL}, smooth=False)
    yield Case("Cast", [whole(1, 2)], {"to": TensorProto.FLOAT}, changing=frozenset({0}))
    yield Case("CastLike", [real(2, 3), whole(1)], smooth=False)


def activations() -> Iterator[Case]:
    for name in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign"):
        yield Case(name, [real(2, 5)], opset=14)
    yield Case("HardSwish", [real(2, 9, low=-5, high=5)])
    yield Case("Mish", [real(2, 5)], opset=18)
    for name in ("LeakyRelu", "Elu", "Celu", "ThresholdedRelu"):
        yield Case(name, [real(2, 5)])
        yield Case(name, [real(2, 5)], {"alpha": 0.3})
    yield Case("Selu", [real(2, 5)])
    yield Case("PRelu", [real(2, 3, 4), real(3, 1, low=0.1, high=0.5)])
    yield Case("HardSigmoid", [real(2, 9, low=-5, high=5)])
    yield Case("HardSigmoid", [real(2, 9, low=-5, high=5)], {"alpha": 0.1667, "beta": 0.4})
    for approximate in ("none", "tanh"):
        yield Case("Gelu", [real(2, 5)], {"approximate": approximate}, opset=20)
    low, high = np.array(-0.5, np.float32), np.array(0.7, np.float32)
    for bounds in ([low, high], [low], [None, high], []):
        for opset in (11, 13):
            yield Case("Clip", [real(2, 5), *bounds], opset=opset, smooth=not bounds)
    yield Case("Dropout", [real(2, 5)], opset=11)
    yield Case("Dropout", [real(2, 5), np.array(0.3, np.float32)], opset=13, smooth=False)
    for name, axis in product(("Softmax", "LogSoftmax"), (0, 1, -1)):
        for opset in (11, 13):
            yield Case(name, [real(2, 3, 4)], {"axis": axis}, opset=opset)
    for name, opset in product(("Softmax", "LogSoftmax"), (11, 13)):
        yield Case(name, [real(2, 3, 4)], opset=opset)


def linear() -> Iterator[Case]:
    for left, right in (((3, 4), (4, 2)), ((2, 3, 4), (4, 2)), ((2, 1, 3, 4), (5, 4, 2))):
        yield Case("MatMul", [real(*left), real(*right)])
    yield Case("MatMul", [real(4), real(4, 2)])
    yield Case("Gemm", [real(3, 4), real(4, 2), real(2)])
    yield Case("Gemm", [real(3, 4), real(4, 2)])
    options = {"alpha": 0.5, "beta": 2.0, "transA": 1, "transB": 1}
    yield Case("Gemm", [real(4, 3), real(2, 4), real(3, 2)], options)
    yield Case("Einsum", [real(2, 3, 4), real(2, 5, 4)], {"equation": "bij,bkj->bik"})
    x, w, b = real(1, 4, 6, 7), real(6, 2, 3, 3), real(6)
    yield Case("Conv", [x, w, b], {"group": 2})
    yield Case("Conv", [x, w], {"group": 2, "pads": [1, 1, 1, 1], "strides": [2, 1]})
    yield Case("Conv", [x, w], {"group": 2, "pads": [1, 0, 2, 1], "dilations": [2, 1]})
    for pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        yield Case("Conv", [x, w], {"group": 2, "auto_pad": pad, "strides": [2, 2]}, opset=11)
    yield Case("Conv", [real(1, 2, 9), real(3, 2, 3)], {"pads": [1, 2]})
    yield Case("Conv", [real(1, 2, 4, 5, 3), real(2, 2, 3, 3, 3)], {"pads": [1] * 6})
    w, b = real(4, 3, 3, 3), real(6)
    yield Case("ConvTranspose", [x, w, b], {"group": 2, "strides": [2, 2]})
    options = {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 0]}
    yield Case("ConvTranspose", [x, real(4, 3, 3, 3)], options)
    options = {"strides": [2, 2], "output_shape": [12, 14]}
    yield Case("ConvTranspose", [x, real(4, 3, 3, 3)], options)
    for pad in ("SAME_UPPER", "SAME_LOWER"):
        options = {"strides": [2, 2], "auto_pad": pad}
        yield Case("ConvTranspose", [x, real(4, 3, 3, 3)], options, opset=11)
    yield Case("ConvTranspose", [real(1, 2, 5), real(2, 3, 2)], {"strides": [2]})
    yield Case("ConvTranspose", [real(1, 2, 2, 3, 2), real(2, 1, 2, 2, 2)], {"strides": [2] * 3})


def pooling() -> Iterator[Case]:
    x = real(1, 2, 7, 8)
    shapes: list[dict[str, Any]] = [
        {"kernel_shape": [2, 3]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [0, 1, 2, 0]},
        {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "VALID"},
    ]
    for options in shapes:
        yield Case("MaxPool", [x], options)
        for counted in (0, 1):
            yield Case("AveragePool", [x], {**options, "count_include_pad": counted})
        yield Case("AveragePool", [x], options, opset=19)
    yield Case("MaxPool", [x], {"kernel_shape": [2, 2], "dilations": [2, 3]})
    yield Case("MaxPool", [real(1, 2, 9)], {"kernel_shape": [3], "strides": [2]}, opset=11)
    yield Case("AveragePool", [real(1, 2, 4, 5, 6)], {"kernel_shape": [2] * 3}, opset=11)
    for name in ("GlobalAveragePool", "GlobalMaxPool"):
        yield Case(name, [x])


def normalization() -> Iterator[Case]:
    x, scale, bias = real(2, 4, 3, 5), real(4), real(4)
    for opset in (11, 14, 15):
        statistics = [real(4), real(4, low=0.5)]
        yield Case("BatchNormalization", [x, scale, bias, *statistics], opset=opset)
    yield Case("BatchNormalization", [real(3, 4), scale, bias, real(4), real(4, low=0.5)])
    yield Case("InstanceNormalization", [x, scale, bias], {"epsilon": 1e-3})
    yield Case("LayerNormalization", [x, real(5), real(5)])
    yield Case("LayerNormalization", [x, real(5)], {"axis": -1, "epsilon": 1e-3})
    yield Case("LayerNormalization", [x, real(4, 3, 5), real(4, 3, 5)], {"axis": 1}, outputs=3)
    yield Case("GroupNormalization", [x, real(2), real(2)], {"num_groups": 2}, opset=18)
    yield Case("GroupNormalization", [x, scale, bias], {"num_groups": 2}, opset=21)
    yield Case("LRN", [real(1, 5, 2, 3)], {"size": 3, "alpha": 0.3, "bias": 2.0})
    for p in (1, 2):
        yield Case("LpNormalization", [real(2, 3, 4)], {"axis": 1, "p": p})


def reduction() -> Iterator[Case]:
    plain = "L1 L2 LogSumExp Max Mean Min Prod Sum SumSquare"
    names = [f"Reduce{each}" for each in plain.split()]
    for name in names:
        x = real(2, 3, 4)
        late = 13 if name == "ReduceSum" else 18
        for keep in (0, 1):
            yield Case(name, [x], {"axes": [-1, 0], "keepdims": keep}, opset=11)
            yield Case(name, [x, whole(-1, 0)], {"keepdims": keep}, opset=late)
        yield Case(name, [x], opset=11)
        yield Case(name, [x], opset=late)
        yield Case(name, [x], {"noop_with_empty_axes": 1}, opset=late)
    yield Case("ReduceLogSum", [real(2, 3, low=0.2), whole(1)], opset=18)
    yield Case("ReduceSum", [whole(1, 2, 3), whole(0)], changing=frozenset({0}))
    for name, keep in product(("ArgMax", "ArgMin"), (0, 1)):
        x = np.array([[1, 3, 3], [2, 0, 0]], np.float32)
        for last in (0, 1):
            options = {"axis": 1, "keepdims": keep, "select_last_index": last}
            yield Case(name, [x], options, smooth=False)
    for exclusive, reverse in product((0, 1), (0, 1)):
        options = {"exclusive": exclusive, "reverse": reverse}
        yield Case("CumSum", [real(2, 4), np.array(1, np.int32)], options)
    for largest in (0, 1):
        yield Case("TopK", [real(2, 5), whole(3)], {"largest": largest}, outputs=2)


def shapes() -> Iterator[Case]:
    x = real(2, 3, 4)
    for name in ("Identity", "Shape", "Size"):
        yield Case(name, [x], smooth=name == "Identity")
    yield Case("Shape", [x], {"start": 1}, smooth=False)
    yield Case("Shape", [x], {"start": -2, "end": -1}, smooth=False)
    value = numpy_helper.from_array(np.array([3], np.int64))
    yield Case("ConstantOfShape", [whole(2, 3)], {"value": value}, changing=frozenset({0}))
    yield Case("ConstantOfShape", [whole(2, 3)], changing=frozenset({0}))
    ends = [np.array(each, np.int64) for each in (1, 10, 3)]
    yield Case("Range", ends, changing=frozenset({1}))
    yield Case("Range", [np.array(each, np.float32) for each in (1, 4, 0.7)], smooth=False)
    for shape in ([6, -1], [0, -1], [0, 0, 4], [-1]):
        yield Case("Reshape", [x, whole(*shape)])
    yield Case("Reshape", [real(2, 0, 3), whole(3, 0)], {"allowzero": 1}, smooth=False)
    for axis in (0, 1, 2, 3, -1):
        yield Case("Flatten", [x], {"axis": axis})
    yield Case("Transpose", [x])
    yield Case("Transpose", [x], {"perm": [1, 2, 0]})
    thin = real(1, 3, 1, 2)
    yield Case("Squeeze", [thin], opset=11)
    yield Case("Squeeze", [thin], {"axes": [0, -2]}, opset=11)
    yield Case("Squeeze", [thin, whole(0, -2)])
    yield Case("Squeeze", [thin])
    yield Case("Unsqueeze", [x], {"axes": [0, -1]}, opset=11)
    yield Case("Unsqueeze", [x, whole(-1, 0, 2)])
    yield Case("Expand", [real(3, 1), whole(2, 1, 4)])
    yield Case("Expand", [real(3, 4), whole(1)])
    yield Case("Tile", [x, whole(1, 2, 3)])
    yield Case("Concat", [x, real(2, 1, 4)], {"axis": 1})
    yield Case("Split", [x], {"axis": 1, "split": [1, 2]}, opset=11, outputs=2)
    yield Case("Split", [x], {"axis": 2}, opset=11, outputs=2)
    yield Case("Split", [x, whole(1, 3)], {"axis": 2}, outputs=2)
    yield Case("Split", [x], {"axis": -1}, outputs=2)
    yield Case("Split", [real(7)], {"num_outputs": 3}, opset=18, outputs=3)
    yield Case("Slice", [x, whole(1), whole(10)])
    yield Case("Slice", [x, whole(-3, 0), whole(-1, 2**62), whole(-1, 1), whole(1, 2)])
    yield Case("Slice", [x, whole(2**62), whole(-(2**62)), whole(2), whole(-1)])
    yield Case("Slice", [x, whole(3), whole(0), whole(2), whole(-2)])
    yield Case("Slice", [x, whole(3), whole(1), whole(2)], smooth=False)
    for opset in (11, 13, 18):
        yield Case("Pad", [x, whole(0, 1, 2, 1, 0, -1)], opset=opset)
    yield Case("Pad", [x, whole(0, 1, 2, 1, 0, 1), np.array(1.5, np.float32)], smooth=False)
    for mode in ("reflect", "edge"):
        yield Case("Pad", [x, whole(1, 0, 2, 0, 2, 3)], {"mode": mode})
    yield Case("Pad", [x, whole(1, 2, 2, 3), None, whole(1, -1)], {"mode": "edge"}, opset=18)
    yield Case("Pad", [x, whole(1, 0, 2, 0, 2, 3)], {"mode": "wrap"}, opset=19)


def indexing() -> Iterator[Case]:
    x = real(3, 4, 5)
    for axis in (0, 1, -1):
        yield Case("Gather", [x, whole([0, -1], [2, 1])], {"axis": axis})
    yield Case("Gather", [x, np.array(1, np.int64)])
    yield Case("Gather", [whole(4, 5, 6), np.array(1, np.int32)], changing=frozenset({0}))
    yield Case("GatherElements", [real(3, 3), whole([1, -1, 0], [0, 2, 1])], {"axis": 1})
    yield Case("GatherElements", [real(3, 3), whole([1, -1, 0])])
    yield Case("GatherND", [x, whole([0, 1], [2, -1])])
    yield Case("GatherND", [x, whole([[1, 4]], [[2, 0]], [[3, 1]])], {"batch_dims": 1})
    yield Case("GatherND", [x, whole([1], [0], [3])], {"batch_dims": 1})
    yield Case("ScatterElements", [real(3, 3), whole([1, 0, 2]), real(1, 3)], {"axis": 0})
    added = {"axis": 1, "reduction": "add"}
    yield Case("ScatterElements", [real(2, 3), whole([1, 1]), real(1, 2)], added, opset=16)
    yield Case("ScatterND", [real(4, 3), whole([1], [3]), real(2, 3)], opset=11)
    yield Case("ScatterND", [real(4), whole([1], [1]), real(2)], {"reduction": "add"}, opset=16)
    hot = [whole(0, 2, -1), np.array(3, np.int64), np.array([0.5, 2], np.float32)]
    yield Case("OneHot", hot, {"axis": 0}, changing=frozenset({0}))
    yield Case("OneHot", hot, changing=frozenset({0}))
    yield Case("NonZero", [np.array([[1, 0], [2, 3]], np.float32)], smooth=False)
    for upper, k in product((0, 1), (-1, 0, 2)):
        yield Case("Trilu", [real(2, 3, 4), np.array(k, np.int64)], {"upper": upper})


def resizing() -> Iterator[Case]:
    x = real(1, 2, 5, 6)
    none = np.array([], np.float32)
    up, down = (np.array([1, 1, *each], np.float32) for each in ((2.0, 1.7), (0.6, 0.5)))
    layouts = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    for layout, mode, scales in product(layouts, ("nearest", "linear", "cubic"), (up, down)):
        options = {"coordinate_transformation_mode": layout, "mode": mode}
        for opset in (11, 13):
            yield Case("Resize", [x, none, scales], options, opset=opset)
    nearest = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    for nearest_mode, scales in product(nearest, (up, down)):
        yield Case("Resize", [x, None, scales], {"nearest_mode": nearest_mode})
    for mode in ("nearest", "linear", "cubic"):
        yield Case("Resize", [x, None, None, whole(1, 2, 7, 9)], {"mode": mode})
        symmetric = {"mode": mode, "coordinate_transformation_mode": "half_pixel_symmetric"}
        yield Case("Resize", [x, None, up], symmetric, opset=19)
    for outside in (0, 1):
        options = {"mode": "cubic", "exclude_outside": outside, "cubic_coeff_a": -0.5}
        yield Case("Resize", [x, None, up], options)
    for mode in ("linear", "cubic"):
        yield Case("Resize", [x, None, down], {"mode": mode, "antialias": 1}, opset=18)
    for policy in ("not_larger", "not_smaller"):
        options = {"axes": [2, 3], "keep_aspect_ratio_policy": policy, "mode": "linear"}
        yield Case("Resize", [x, None, None, whole(9, 8)], options, opset=18)
    region = np.array([0, 0, 0.2, -0.1, 1, 1, 0.8, 1.2], np.float32)
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear"}
    options = {**crop, "extrapolation_value": 7.0}
    yield Case("Resize", [x, region, None, whole(1, 2, 4, 7)], options, smooth=False)


def cells() -> Iterator[Case]:
    x = real(1, 2, 5, 6)
    for opset in (11, 13):
        for mode in ("DCR", "CRD"):
            yield Case("DepthToSpace", [real(1, 8, 2, 3)], {"blocksize": 2, "mode": mode}, opset)
        yield Case("SpaceToDepth", [real(1, 2, 4, 6)], {"blocksize": 2}, opset)
    grid = real(1, 4, 3, 2, low=-1.1, high=1.1)
    for corners, padding in product((0, 1), ("zeros", "border", "reflection")):
        options = {"align_corners": corners, "padding_mode": padding}
        yield Case("GridSample", [x, grid], {**options, "mode": "bilinear"}, opset=16)
        yield Case("GridSample", [x, grid], {**options, "mode": "linear"}, opset=20)
    yield Case("GridSample", [x, grid], {"mode": "nearest"}, opset=20, smooth=False)


def quantization() -> Iterator[Case]:
    x, scale = real(2, 3, 4, low=-9, high=9), np.array(0.05, np.float32)
    scales = np.array([0.05, 0.02, 0.1], np.float32)
    for kind, zero in ((np.uint8, 120), (np.int8, -3)):
        yield Case("QuantizeLinear", [x, scale, np.array(zero, kind)], opset=11, smooth=False)
        each = np.array([zero, zero + 2, zero + 1], kind)
        yield Case("QuantizeLinear", [x, scales, each], {"axis": 1}, smooth=False)
        steps = RANDOM.integers(0, 100, (2, 3, 4)).astype(kind)
        given = [steps, scale, np.array(zero, kind)]
        yield Case("DequantizeLinear", given, opset=11, smooth=False, changing=frozenset({0}))
        given = [steps, scales, each]
        yield Case("DequantizeLinear", given, smooth=False, changing=frozenset({0}))
    yield Case("QuantizeLinear", [x, scale], smooth=False)
    steps = RANDOM.integers(-999, 999, (2, 3)).astype(np.int32)
    yield Case("DequantizeLinear", [steps, scale], smooth=False, changing=frozenset({0}))


FAMILIES = (
    arithmetic,
    logic,
    activations,
    linear,
    pooling,
    normalization,
    reduction,
    shapes,
    indexing,
    resizing,
    cells,
    quantization,
)
CASES = [case for family in FAMILIES for case in family()]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_gives_what_onnxruntime_gives(case: Case) -> None:
    model = case.model().SerializeToString()
    expected = on_onnxruntime(model, case.given)
    network = network_of(model)
    function = find(case.operator, case.opset)
    given = [torch.from_numpy(each) for each in case.given.values()]
    found = network(*given)
    assert function is not None
    assert found.shape == expected[0].shape
    np.testing.assert_allclose(found.numpy(), expected[0], rtol=2e-5, atol=2e-5)
    if case.operator != "QuantizeLinear":  # whole numbers, but no integers: a gradient passes
        assert found.numpy().dtype == expected[0].dtype


@pytest.mark.parametrize("case", [each for each in CASES if each.smooth], ids=str)
def test_its_derivative_is_that_of_its_values(case: Case) -> None:
    model = case.model().SerializeToString()
    given = [torch.from_numpy(each) for each in case.given.values()]
    wide = [each.double().requires_grad_() if each.is_floating_point() else each for each in given]
    if any(each.requires_grad for each in wide):
        torch.autograd.gradcheck(network_of(model).double(), wide, fast_mode=True)


@pytest.mark.parametrize(
    "case", [each for each in CASES if each.outputs > 1 and each.operator != "TopK"], ids=str
)
def test_its_other_outputs_are_right_too(case: Case) -> None:
    expected = on_onnxruntime(case.model().SerializeToString(), case.given)
    for k, other in enumerate(expected):
        model = case.model()
        wanted = model.graph.output[k].name
        del model.graph.output[:]
        model.graph.output.append(helper.make_empty_tensor_value_info(wanted))
        found = network_of(model.SerializeToString())(
            *[torch.from_numpy(each) for each in case.given.values()]
        )
        np.testing.assert_allclose(found.numpy(), other, rtol=2e-5, atol=2e-5)


def test_every_operator_that_is_known_is_tested() -> None:
    inside = {"Constant"}  # never leads to an output by itself; the exported networks have it
    assert {case.operator for case in CASES} | inside == set(known())


def test_an_operator_names_only_attributes_of_the_standard() -> None:
    import onnx.defs  # noqa: PLC0415

    own = {"count"}  # ours: how many outputs are wanted
    for name in known():
        every = {
            attribute
            for opset in range(11, 22)
            if onnx.defs.has(name, opset)
            for attribute in onnx.defs.get_schema(name, opset).attributes
        }
        taken = {
            each for opset in range(11, 22) if (f := find(name, opset)) for each in keywords(f)
        }
        assert taken - own <= every, name
