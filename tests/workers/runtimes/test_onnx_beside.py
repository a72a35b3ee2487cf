"""ONNX graphs of several inputs: an image, and tensors of numbers beside it."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from service.errors.models import InvalidPackage
from tests.support.engine import SIZES, logits, run_alone
from tests.support.fused import (
    IMAGE,
    NAMES,
    companions,
    fused_onnx,
    fused_runtime,
    parts,
    picture,
    tabular,
)
from workers.methods.feature_ablation import FeatureAblation
from workers.methods.integrated_gradients import IntegratedGradients
from workers.passes import Forward
from workers.rows import Beside, Given
from workers.runtimes.graph.read import read_model
from workers.runtimes.onnx import OnnxRuntime
from workers.tabular import accompanied

SHAPE = (1, *SIZES[2])


@pytest.fixture(scope="module")
def exported() -> bytes:
    return fused_onnx()


def runtime_of(exported: bytes, names: tuple[str, ...] = NAMES) -> OnnxRuntime:
    return OnnxRuntime(read_model(exported), SHAPE, companions=companions(), beside=names)


def test_the_graph_is_given_each_tensor_by_its_name(exported: bytes) -> None:
    """What onnxruntime itself says of the three, row by row."""
    given = tabular(torch.float32)
    images = torch.stack([picture(), -picture()]).float()
    values = torch.stack([given.values, given.baseline])
    (told,) = onnxruntime.InferenceSession(exported).run(
        ["logits"],
        {
            IMAGE: images.numpy(),
            **{name: each.numpy().copy() for name, each in zip(NAMES, parts(values), strict=True)},
        },
    )

    def plan() -> Any:
        step = yield Forward(Beside(Given(images), values), logits(0, 1, 2, 3, 4))
        return step.scores

    np.testing.assert_allclose(run_alone(plan(), runtime_of(exported)), told, rtol=1e-5)


@pytest.mark.parametrize("method", [IntegratedGradients(steps=6), FeatureAblation(segments=9)])
def test_maps_and_shares_are_those_of_the_network_in_torch(exported: bytes, method: Any) -> None:
    runtime, given = runtime_of(exported), tabular(torch.float32)
    assert runtime.probed.stood_in
    image = picture().float()
    found = run_alone(accompanied(method.joint(image, logits(1, 3), given), given), runtime)
    plain = fused_runtime()
    truth = run_alone(
        accompanied(method.joint(picture(), logits(1, 3), tabular()), tabular()), plain
    )
    for ours, theirs in ((found.values, truth.values), (found.shares, truth.shares)):
        span = float(theirs.max() - theirs.min())
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4 * span)


@pytest.mark.parametrize("names", [(), ("age_and_sex",), ("age_and_sex", "weight")])
def test_inputs_that_the_manifest_does_not_name_are_told(
    exported: bytes, names: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidPackage) as refused:
        OnnxRuntime(
            read_model(exported), SHAPE, companions=companions() if names else None, beside=names
        )
    assert refused.value.facts["inputs"] == [*NAMES, IMAGE]
