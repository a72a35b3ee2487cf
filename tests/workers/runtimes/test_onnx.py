"""ONNX on onnxruntime gives what torch gives, and refuses what it cannot."""

import pytest
import torch

from service.errors import InvalidPackage, UnservablePass
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
from tests.support.exported import exported
from workers.methods.base import METHODS
from workers.methods.occlusion import Occlusion
from workers.passes import Ability, Exclusive, Forward, Gradient, Plan, Step, Tap
from workers.rows import Ablated, Clean
from workers.runtimes.onnx import OnnxRuntime
from workers.scheduler import Scheduler
from workers.union import work_of

TENSOR = "/features/features.4/Conv_output_0"
SHAPES = {2: (1, 20, 16), 3: (1, 12, 10, 8)}


def runtime_of(axes: int = 2, **options: bool) -> OnnxRuntime:
    return OnnxRuntime(exported(axes, **options), SHAPES[axes], {LAYER: TENSOR, "no": "nowhere"})


def test_the_probe_finds_what_the_graph_has() -> None:
    probed = runtime_of().probed
    assert probed.abilities == {Ability.FORWARD, Ability.ACTIVATIONS}
    (layer,) = probed.layers
    assert (layer.name, layer.shape, layer.stride) == (LAYER, (8, 10, 8), (2.0, 2.0))
    assert set(probed.refused) == {"no"}
    assert probed.outputs == (5,)
    assert not probed.mixes_rows
    assert probed.row_seconds["forward"] > 0


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


def test_gradients_are_refused_and_only_that_method_fails() -> None:
    runtime, image = runtime_of(), image_for(dtype=torch.float32)
    with pytest.raises(UnservablePass):
        runtime.group(work_of([Gradient(Clean(image), logits(0))]))
    plans = [METHODS[name]().plan(image, logits(0)) for name in ("saliency", "occlusion")]
    refused, maps = through(Scheduler(), runtime, *plans)
    assert isinstance(refused, UnservablePass)
    assert maps.values.shape == (1, 1, 3, 2)


def test_an_ablation_is_refused_and_not_answered_by_whole_rows() -> None:
    rows = Ablated(image_for(dtype=torch.float32), LAYER, (0, 1))
    with pytest.raises(UnservablePass, match="cannot change"):
        runtime_of().group(work_of([Forward(rows, logits(0))]))


def test_an_unknown_layer_and_a_loan_are_refused() -> None:
    runtime, image = runtime_of(), image_for(dtype=torch.float32)
    with pytest.raises(UnservablePass, match="no usable layer"):
        runtime.group(work_of([Forward(Clean(image), logits(0), taps=(Tap("no"),))]))
    with pytest.raises(UnservablePass):
        runtime.lend(Exclusive(lambda _: None, 1.0), 0.0)


def test_it_serves_itself_a_row_at_a_time_but_no_other_weights() -> None:
    runtime, image = runtime_of(), image_for(dtype=torch.float32)
    variant = runtime.variant(None)
    work = work_of([Forward(Clean(image), logits(0))])
    assert variant.fits(variant.group(work)).rows == 1
    assert runtime.fits(runtime.group(work)).rows > 1
    method = Occlusion(window=8, stride=8)
    alone = attribute(method, variant, image, logits(1)).values
    torch.testing.assert_close(alone, attribute(method, runtime, image, logits(1)).values)
    with pytest.raises(UnservablePass):
        runtime.variant(small_net())


def test_a_model_of_fixed_batch_runs_one_row_at_a_time() -> None:
    runtime, image = runtime_of(fixed=True), image_for(dtype=torch.float32)
    method = Occlusion(window=8, stride=8)
    (ours,) = through(Scheduler(), runtime, method.plan(image, logits(1)))
    theirs = attribute(method, small_runtime(dtype=torch.float32), image, logits(1), chunk=1)
    torch.testing.assert_close(ours.values, theirs.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"not a model", exported()[:500]])
def test_bytes_that_are_no_model_are_refused_in_our_words(content: bytes) -> None:
    with pytest.raises(InvalidPackage) as refused:
        OnnxRuntime(content, SHAPES[2])
    assert refused.value.__cause__ is None


def test_in_deterministic_mode_company_does_not_change_a_bit() -> None:
    runtime = OnnxRuntime(exported(), SHAPES[2], fixed_rows=4)
    image = image_for(dtype=torch.float32)
    method = Occlusion(window=8, stride=4)
    (alone,) = through(Scheduler(), runtime, method.plan(image, logits(1)))
    others = [method.plan(image_for(dtype=torch.float32, seed=k), logits(2)) for k in range(3)]
    *_, merged = through(Scheduler(), runtime, *others, method.plan(image, logits(1)))
    assert torch.equal(alone.values, merged.values)
