"""A model on a server that takes numbers beside the image: the same file on onnxruntime here."""

from collections.abc import Iterator

import pytest
import torch

from service.domain.network import Remote
from service.errors.models import RemoteTensorMismatch, UnservablePass
from tests.support.engine import SIZES, logits, through
from tests.support.fused import (
    IMAGE,
    NAMES,
    WIDTHS,
    companions,
    fused_onnx,
    picture,
    tabular,
)
from tests.support.inference_server import InferenceServer, serving
from workers.methods.base import METHODS
from workers.runtimes.graph.read import read_model
from workers.runtimes.onnx import OnnxRuntime
from workers.runtimes.open_inference import Server
from workers.runtimes.remote import RemoteRuntime
from workers.scheduler import Scheduler
from workers.tabular import Companions, accompanied

SHAPE = (1, *SIZES[2])
SHARING = ("feature_ablation", "kernel_shap", "lime", "occlusion", "shapley_sampling")
MODEL = fused_onnx()


@pytest.fixture(scope="module")
def server() -> Iterator[InferenceServer]:
    with serving(InferenceServer(MODEL)) as running:
        yield running


def opened(
    server: InferenceServer,
    names: tuple[str, ...] = NAMES,
    widths: tuple[int, ...] = WIDTHS,
) -> RemoteRuntime:
    remote = Remote(endpoint="lab", model="chest", input=IMAGE, output="logits")
    beside = Companions(companions().baseline, widths)
    return RemoteRuntime(
        Server(server.url, remote, 5.0), remote, "lab", SHAPE, companions=beside, beside=names
    )


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", [*SHARING, "rise"])
def test_maps_and_shares_are_those_of_the_same_model_here(
    server: InferenceServer, name: str, binary: bool
) -> None:
    server.binary = binary
    local = OnnxRuntime(read_model(MODEL), SHAPE, companions=companions(), beside=NAMES)
    fields = METHODS[name].model_fields
    method = METHODS[name](**({"samples": 64} if "samples" in fields else {}))
    image, given = picture().float(), tabular(torch.float32)
    theirs, ours = (
        through(Scheduler(), each, accompanied(method.joint(image, logits(1, 3), given), given))[0]
        for each in (opened(server), local)
    )
    span = float(ours.values.abs().max())
    torch.testing.assert_close(theirs.values, ours.values, rtol=0, atol=2e-5 * max(span, 1.0))
    assert (ours.shares is not None) == (name in SHARING)
    if ours.shares is not None:
        torch.testing.assert_close(theirs.shares, ours.shares, rtol=1e-4, atol=1e-4)
        assert float(ours.shares.abs().max()) > 0.1


def test_a_tensor_that_the_server_does_not_have_is_named(server: InferenceServer) -> None:
    with pytest.raises(RemoteTensorMismatch) as told:
        opened(server, names=("age_and_sex", "weight"))
    assert told.value.pointer == "/inputs"
    assert told.value.facts["found"] == [*NAMES, IMAGE]


def test_another_count_of_numbers_is_told_with_both(server: InferenceServer) -> None:
    with pytest.raises(RemoteTensorMismatch) as told:
        opened(server, widths=(1, 2))
    assert told.value.facts == {"expected": [-1, 1], "found": [-1, 2]}


def test_rows_without_the_numbers_never_reach_the_server(server: InferenceServer) -> None:
    runtime = opened(server)
    asked = len(server.batches)
    plan = METHODS["occlusion"]().plan(picture().float(), logits(1))
    (failed,) = through(Scheduler(), runtime, plan)
    assert isinstance(failed, UnservablePass)
    assert len(server.batches) <= asked + 1  # but for the trial input after a job
