"""ONNX gives what torch gives: on onnxruntime, or on its graph interpreted in torch."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from service.contents import inspect
from service.errors.models import InvalidPackage, UnservablePass
from tests.support.engine import (
    LAYER,
    attribute,
    image_for,
    logits,
    run_alone,
    small_net,
    small_runtime,
    through,
)
from tests.support.exported import exported, onnx_of, uninterpreted, write_onnx_package
from tests.support.small_model import SIDE, network
from workers.methods.base import METHODS, ModelFacts
from workers.methods.occlusion import Occlusion
from workers.passes import Ability, Exclusive, Forward, Gradient, Plan, Step, Tap
from workers.rows import Ablated, Clean, Given
from workers.runtimes import memory, session
from workers.runtimes.base import Segment
from workers.runtimes.graph.operators import base
from workers.runtimes.graph.read import read_model
from workers.runtimes.memory import peaked, resident_bytes
from workers.runtimes.onnx import OnnxRuntime
from workers.runtimes.onnx_opener import OnnxOpener
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler
from workers.union import work_of

TENSOR = "/features/features.4/Conv_output_0"
SHAPES = {2: (1, 20, 16), 3: (1, 12, 10, 8)}


def runtime_of(axes: int = 2, **options: bool) -> OnnxRuntime:
    model = read_model(exported(axes, **options))
    return OnnxRuntime(model, SHAPES[axes], {LAYER: TENSOR, "no": "nowhere"})


def test_the_probe_finds_what_the_graph_has() -> None:
    probed = runtime_of().probed
    own = {Ability.FORWARD, Ability.ACTIVATIONS}
    theirs = TorchRuntime(small_net(2, dtype=torch.float32), SHAPES[2], [LAYER]).probed
    assert probed.abilities == own | theirs.abilities - {Ability.RESCALE_RULE}
    assert probed.surrogate == probed.abilities - own
    assert probed.difference is not None
    assert probed.difference < 1e-5
    (layer,) = probed.layers
    assert (layer.name, layer.shape, layer.stride) == (LAYER, (8, 10, 8), (2.0, 2.0))
    assert probed.refused == {"no": "The graph has no tensor 'nowhere' for 'no'."}
    assert probed.outputs == (5,)
    assert not probed.mixes_rows
    assert probed.row_seconds["forward"] > 0
    assert probed.row_seconds["gradient"] > 0


@pytest.mark.parametrize("axes", [2, 3])
def test_occlusion_equals_torch(axes: int) -> None:
    image = image_for(axes, dtype=torch.float32)
    method = Occlusion(window=4, stride=2, baseline=0.2)
    (ours,) = through(Scheduler(), runtime_of(axes), method.plan(image, logits(1, 3)))
    theirs = attribute(
        method, small_runtime(axes, dtype=torch.float32), image, logits(1, 3), chunk=8
    )
    scores = small_net(axes, dtype=torch.float32)(image[None]).abs().max().item()
    # a difference of nearly equal scores: its error scales with the score
    assert (ours.values - theirs.values).abs().max().item() <= 4e-6 * max(scores, 1.0)
    assert ours.values.std() > 1e-4


def test_taps_and_outputs_equal_torch() -> None:
    image = image_for(dtype=torch.float32)

    def plan() -> Plan[Step]:
        ask = Forward(Clean(image), logits(2), taps=(Tap(LAYER),), outputs=True)
        step: Step = yield ask
        return step

    ours = run_alone(plan(), runtime_of())
    theirs = run_alone(plan(), small_runtime(dtype=torch.float32))
    for mine, other in (
        (ours.scores, theirs.scores),
        (ours.outputs, theirs.outputs),
        (ours.taps[Tap(LAYER)], theirs.taps[Tap(LAYER)]),
    ):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


GRADIENT_METHODS = (
    "ablation_cam",
    "deconvolution",
    "eigen_cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "guided_backprop",
    "guided_grad_cam",
    "gradient_shap",
    "hires_cam",
    "input_x_gradient",
    "integrated_gradients",
    "layer_cam",
    "saliency",
    "smooth_grad",
    "xgrad_cam",
)


@pytest.mark.parametrize("name", GRADIENT_METHODS)
def test_methods_that_need_more_than_scores_equal_those_on_torch(name: str) -> None:
    image = image_for(dtype=torch.float32)
    original = small_runtime(dtype=torch.float32)
    facts = ModelFacts(layers=(LAYER,), linear_heads=tuple(original.probed.linear_heads))
    method = METHODS[name]().settled(facts)
    (ours,) = through(Scheduler(), runtime_of(), method.plan(image, logits(1, 3)))
    (theirs,) = through(Scheduler(), original, method.plan(image, logits(1, 3)))
    assert not isinstance(theirs, Exception)
    span = theirs.values.abs().max().item()
    assert span > 0
    torch.testing.assert_close(ours.values, theirs.values, rtol=1e-3, atol=1e-4 * span)


def test_layers_are_found_by_their_tensors_when_none_is_named() -> None:
    runtime = OnnxRuntime(read_model(exported()), SHAPES[2])
    found = {layer.name: layer.shape for layer in runtime.probed.layers}
    assert found["/features/features.5/Relu_output_0"] == (8, 10, 8)
    assert all("deepest" in layer.reason for layer in runtime.probed.layers)


def test_without_the_interpreted_graph_gradients_are_refused_and_only_they_fail() -> None:
    runtime, image = (
        OnnxRuntime(read_model(uninterpreted(exported())), SHAPES[2]),
        image_for(dtype=torch.float32),
    )
    assert runtime.probed.abilities == {Ability.FORWARD}
    assert runtime.probed.difference is None
    assert "not interpreted: Shrink" in runtime.probed.unable[Ability.INPUT_GRADIENT]
    with pytest.raises(UnservablePass, match="Shrink"):
        runtime.group(work_of([Gradient(Clean(image), logits(0))]))
    with pytest.raises(UnservablePass, match="Shrink"):
        runtime.lend(Exclusive(lambda _: None, 1.0), 0.0)
    with pytest.raises(UnservablePass, match="Shrink"):
        runtime.group(work_of([Forward(Ablated(image, LAYER, (0, 1)), logits(0))]))
    plans = [METHODS[name]().plan(image, logits(0)) for name in ("saliency", "occlusion")]
    refused, maps = through(Scheduler(), runtime, *plans)
    assert isinstance(refused, UnservablePass)
    assert maps.values.shape == (1, 1, 3, 2)


def test_an_interpretation_that_differs_on_noise_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if an operator were interpreted wrongly."""

    def halved(x: Tensor, *, axis: int = 1) -> Tensor:
        return 0.5 * x.flatten(axis)

    monkeypatch.setitem(base._OPERATORS, "Flatten", {1: halved})
    probed = OnnxRuntime(read_model(exported()), SHAPES[2], {LAYER: TENSOR}).probed
    assert Ability.INPUT_GRADIENT not in probed.abilities
    assert "differs by" in probed.unable[Ability.INPUT_GRADIENT]


def test_scores_are_the_files_own_also_where_gradients_are_the_interpreted_graphs() -> None:
    """A model that onnxruntime alone runs is not even touched for scores."""
    runtime, image = runtime_of(), image_for(dtype=torch.float32)
    assert runtime._twin is not None
    with torch.no_grad():
        for parameter in runtime._twin.model.parameters():
            parameter.zero_()

    def plan() -> Plan[Step]:
        step: Step = yield Forward(Clean(image), logits(2), taps=(Tap(LAYER),))
        return step

    step = run_alone(plan(), runtime)
    assert step.scores.abs().item() > 0
    assert step.taps[Tap(LAYER)].abs().max() > 0


def test_an_unknown_layer_is_refused() -> None:
    runtime, image = runtime_of(), image_for(dtype=torch.float32)
    with pytest.raises(UnservablePass, match="no usable layer"):
        runtime.group(work_of([Forward(Clean(image), logits(0), taps=(Tap("no"),))]))


def test_a_model_of_fixed_batch_runs_one_row_at_a_time() -> None:
    runtime, image = runtime_of(fixed=True), image_for(dtype=torch.float32)
    method = Occlusion(window=8, stride=8)
    (ours,) = through(Scheduler(), runtime, method.plan(image, logits(1)))
    theirs = attribute(method, small_runtime(dtype=torch.float32), image, logits(1), chunk=1)
    torch.testing.assert_close(ours.values, theirs.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"not a model", exported()[:500]])
def test_bytes_that_are_no_model_are_refused_in_our_words(content: bytes) -> None:
    with pytest.raises(InvalidPackage) as refused:
        OnnxRuntime(read_model(content), SHAPES[2])
    assert refused.value.__cause__ is None


def test_in_deterministic_mode_company_does_not_change_a_bit() -> None:
    runtime = OnnxRuntime(read_model(exported()), SHAPES[2], fixed_rows=4)
    image = image_for(dtype=torch.float32)
    method = Occlusion(window=8, stride=4)
    (alone,) = through(Scheduler(), runtime, method.plan(image, logits(1)))
    others = [method.plan(image_for(dtype=torch.float32, seed=k), logits(2)) for k in range(3)]
    *_, merged = through(Scheduler(), runtime, *others, method.plan(image, logits(1)))
    assert torch.equal(alone.values, merged.values)


def last(content: bytes) -> Any:
    """Return a graph that is given its channels last and turns them to the front."""
    model = read_model(content)
    (image,) = model.graph.input
    first = helper.make_node("Transpose", ["channels_last"], [image.name], perm=[0, 3, 1, 2])
    model.graph.node.insert(0, first)
    image.name = "channels_last"
    del image.type.tensor_type.shape.dim[:]
    for _ in range(4):
        image.type.tensor_type.shape.dim.add()
    return model


@pytest.mark.parametrize("name", ["saliency", "grad_cam", "occlusion", "eigen_cam"])
def test_channels_last_gives_the_maps_of_channels_first(name: str) -> None:
    image = image_for(2, 3, dtype=torch.float32)
    shape, layers = tuple(image.shape), {LAYER: TENSOR}
    method = METHODS[name]().settled(ModelFacts(layers=(LAYER,)))
    ours, theirs = (
        through(Scheduler(), runtime, method.plan(image, logits(1)))[0].values
        for runtime in (
            OnnxRuntime(last(exported(2, 3)), shape, layers, channels_last=True),
            OnnxRuntime(read_model(exported(2, 3)), shape, layers),
        )
    )
    assert theirs.abs().max() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def apart() -> dict[str, bytes]:
    """Return the exported network with its weights in a file of their own."""
    model = onnx.load_from_string(onnx_of(network(), torch.zeros(1, SIDE, SIDE)))
    data = b""
    for tensor in model.graph.initializer:
        for key, value in (
            ("location", "numbers/weights.bin"),
            ("offset", str(len(data))),
            ("length", str(len(tensor.raw_data))),
        ):
            tensor.external_data.add(key=key, value=value)
        data += tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
    return {"graph/model.onnx": model.SerializeToString(), "graph/numbers/weights.bin": data}


def opened(folder: Path) -> OnnxRuntime:
    manifest, _ = inspect(folder)
    return OnnxOpener().open(manifest, folder, (1, SIDE, SIDE), torch.device("cpu"))()


def test_a_package_with_external_data_runs_and_its_results_bind_both_files(tmp_path: Path) -> None:
    runtime = opened(write_onnx_package(tmp_path / "apart", apart()))
    one = opened(write_onnx_package(tmp_path / "one"))
    image = torch.linspace(-1, 1, SIDE * SIDE).view(1, SIDE, SIDE)
    maps = [
        through(Scheduler(), each, METHODS["saliency"]().plan(image, logits(1)))[0].values
        for each in (runtime, one)
    ]
    torch.testing.assert_close(*maps)
    manifest, _ = inspect(tmp_path / "apart")
    model, data = (file.sha256 for file in manifest.files[-2:])
    assert manifest.weights not in {model, data}
    changed = manifest.files[-1].model_copy(update={"sha256": "0" * 64})
    other = manifest.model_copy(update={"files": (*manifest.files[:-1], changed)})
    assert other.weights != manifest.weights


def test_external_data_that_the_manifest_does_not_list_is_refused(tmp_path: Path) -> None:
    model, data = apart().values()
    folder = write_onnx_package(tmp_path / "package", {"model.onnx": model, "other.bin": data})
    with pytest.raises(InvalidPackage, match="none of the package's"):
        opened(folder)


# ------------------------------------------------------------------------------- memory


def wide(*, readable: bool = True) -> bytes:
    """Return a network that takes more for a row than most: 48 channels at the image's size."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 48, 3, padding=1), nn.GELU(), nn.Conv2d(48, 48, 1), nn.GELU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 5))
    content = onnx_of(model.eval(), torch.zeros(1, 64, 64))
    return content if readable else uninterpreted(content)


@pytest.mark.parametrize("readable", [True, False])
def test_a_batch_takes_the_memory_that_was_probed_and_gives_it_back(readable: bool) -> None:
    """Of twice as many rows as were probed; also where the graph cannot be interpreted."""
    runtime = OnnxRuntime(read_model(wide(readable=readable)), (1, 64, 64))
    probed, rows = runtime.probed, 128
    assert probed.stood_in == readable
    work = work_of([Forward(Given(torch.randn(rows, 1, 64, 64)), logits(1))])
    segment = Segment(work, 0, rows)
    before = resident_bytes()
    grew = peaked(lambda: runtime.serve(runtime.group(work), [segment]))
    assert grew is not None
    expected = rows * probed.row_bytes["forward"]
    assert expected > 40 << 20
    assert 0.6 * expected < grew < 1.25 * expected
    assert resident_bytes() - before < 0.1 * grew


def test_a_graph_of_one_row_is_measured_by_that_row() -> None:
    content = onnx_of(network(), torch.zeros(1, 256, 256), fixed=True)
    runtime = OnnxRuntime(read_model(content), (1, 256, 256))
    assert runtime.probed.mixes_rows
    work = work_of([Forward(Given(torch.randn(1, 1, 256, 256)), logits(1))])
    grew = peaked(lambda: runtime.serve(runtime.group(work), [Segment(work, 0, 1)]))
    assert grew is not None
    assert 0.3 * runtime.probed.row_bytes["forward"] < grew
    assert grew < 1.1 * runtime.probed.row_bytes["forward"] + 65_536


def test_where_peaks_are_not_counted_a_guess_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PEAK_RESET", Path("/proc/self/no_such_file/at_all"))
    probed = runtime_of().probed
    values = math.prod(SHAPES[2])
    assert probed.row_bytes["forward"] == 256 * values + 4 * (values + 5)


def test_a_graph_that_loops_without_end_is_refused_and_the_worker_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "MOST_SECONDS", 0.5)
    model = onnx.load_from_string(exported(2))
    (output,) = model.graph.output
    model.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.array(1 << 60), "times"),
            onnx.numpy_helper.from_array(np.array(True), "on"),
        ]
    )
    body = onnx.parser.parse_graph(
        "body (int64 i, bool c, float v) => (bool d, float w) { d = Identity(c) w = Identity(v) }"
    )
    model.graph.node.append(
        onnx.helper.make_node("Loop", ["times", "on", output.name], ["looped"], body=body)
    )
    output.name = "looped"
    with pytest.raises(InvalidPackage, match="no answer on one row"):
        OnnxRuntime(read_model(model.SerializeToString()), SHAPES[2])
