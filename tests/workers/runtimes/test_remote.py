"""Models behind the Open Inference Protocol.

The server is a small one of our own, strict by the protocol, because it must
misbehave; MLServer (whose pins do not go with ours, and which takes minutes to
install) takes its place where ``WHYLIGHT_TEST_MLSERVER`` names its program.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from service.domain.network import Remote
from service.errors.base import Kind, WhylightError
from service.errors.models import (
    NonFiniteScore,
    RemoteChanged,
    RemoteError,
    RemoteMalformed,
    RemoteNotReady,
    RemoteTensorMismatch,
    RemoteUnreachable,
    RemoteWrongDatatype,
    UnservablePass,
)
from tests.support import inference_server
from tests.support.engine import image_for, logits, run_alone, small_net, through
from tests.support.exported import exported
from tests.support.inference_server import InferenceServer, serving
from tests.support.ports import free_port
from workers.methods.base import METHODS
from workers.passes import Ability, Forward, Gradient, Plan, Step, Tap
from workers.rows import INPUT, Clean
from workers.runtimes.base import ReplicaChangedError
from workers.runtimes.graph.read import read_model
from workers.runtimes.onnx import OnnxRuntime
from workers.runtimes.open_inference import Server
from workers.runtimes.remote import RemoteRuntime
from workers.scheduler import Scheduler

SHAPE = (1, 20, 16)
MODEL = exported()
FORWARD_ONLY = (
    "feature_ablation",
    "kernel_shap",
    "lime",
    "occlusion",
    "rise",
    "shapley_sampling",
)


@pytest.fixture(scope="module")
def running() -> Iterator[InferenceServer]:
    with serving(InferenceServer(MODEL)) as server:
        yield server


@pytest.fixture
def server(running: InferenceServer) -> InferenceServer:
    """A server that behaves at first, whatever was done to it before."""
    for field in dataclasses.fields(InferenceServer):
        if field.name in {"model", "url"}:
            continue
        fresh = field.default_factory() if callable(field.default_factory) else field.default
        setattr(running, field.name, fresh)
    return running


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLServer, in the environment that its program belongs to."""
    program = os.environ.get("WHYLIGHT_TEST_MLSERVER")
    if program is None:
        pytest.skip("WHYLIGHT_TEST_MLSERVER names no MLServer")
    folder = tmp_path_factory.mktemp("mlserver")
    (folder / "model.onnx").write_bytes(MODEL)
    shutil.copy(Path(inference_server.__file__).with_name("mlserver_onnx.py"), folder)
    tensor = {"name": "image", "datatype": "FP32", "shape": [-1, *SHAPE]}
    settings = {
        "name": "chest",
        "implementation": "mlserver_onnx.OnnxModel",
        "parameters": {"uri": str(folder / "model.onnx"), "version": "3"},
        "inputs": [tensor],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 5]}],
    }
    ports = {f"{name}_port": free_port() for name in ("http", "grpc", "metrics")}
    (folder / "model-settings.json").write_text(json.dumps(settings))
    (folder / "settings.json").write_text(
        json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **ports})
    )
    url = f"http://127.0.0.1:{ports['http_port']}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "start", str(folder)], stdout=log, stderr=log)
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                httpx.get(f"{url}/v2/models/chest/ready", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def named(**changes: Any) -> Remote:
    words = {"endpoint": "lab", "model": "chest", "input": "image", "output": "logits"}
    return Remote.model_validate({**words, **changes})


def opened(url: str, *, seconds: float = 5.0, fixed: int | None = None, **words: Any) -> Any:
    remote = named(**words)
    server = Server(url, remote, seconds)
    return RemoteRuntime(server, remote, "lab", SHAPE, layers=["deep"], fixed_rows=fixed)


@pytest.fixture(scope="module")
def local() -> OnnxRuntime:
    """The same model, in this process."""
    return OnnxRuntime(read_model(MODEL), SHAPE, {})


def outputs_of(runtime: Any, image: torch.Tensor) -> torch.Tensor:
    def plan() -> Plan[torch.Tensor]:
        step: Step = yield Forward(Clean(image), outputs=True)
        given: torch.Tensor = step.outputs
        return given

    found: torch.Tensor = through(Scheduler(), runtime, plan())[0]
    return found


@pytest.fixture
def image() -> torch.Tensor:
    return image_for(dtype=torch.float32)


# ------------------------------------------------------------- what it can do


def test_the_probe_tells_what_the_server_reported(server: InferenceServer) -> None:
    probed = opened(server.url).probed
    assert probed.abilities == {Ability.FORWARD}
    assert set(probed.refused) == {"deep"}
    assert probed.outputs == (5,)
    assert not probed.mixes_rows
    assert probed.row_seconds["forward"] > 0
    assert probed.remote is not None
    assert probed.remote.model_dump() == {
        "endpoint": "lab",
        "server": "small 1.0",
        "model": "chest",
        "model_version": "3",
        "platform": "onnxruntime_onnx",
    }


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", FORWARD_ONLY)
def test_maps_equal_those_of_the_same_model_here(
    server: InferenceServer, local: OnnxRuntime, image: torch.Tensor, name: str, binary: bool
) -> None:
    server.binary = binary
    method = METHODS[name]()
    (theirs,) = through(Scheduler(), opened(server.url), method.plan(image, logits(1, 3)))
    (ours,) = through(Scheduler(), local, method.plan(image, logits(1, 3)))
    span = ours.values.abs().max().item()
    assert span > 1e-4
    assert (ours.values - theirs.values).abs().max().item() <= 2e-5 * max(span, 1.0)


def test_maps_equal_those_of_a_real_mlserver(
    mlserver: str, local: OnnxRuntime, image: torch.Tensor
) -> None:
    runtime = opened(mlserver)
    assert runtime.probed.remote.server.startswith("mlserver ")
    for name in FORWARD_ONLY:
        method = METHODS[name]()
        (theirs,) = through(Scheduler(), runtime, method.plan(image, logits(1, 3)))
        (ours,) = through(Scheduler(), local, method.plan(image, logits(1, 3)))
        torch.testing.assert_close(theirs.values, ours.values, rtol=1e-4, atol=2e-5)
    runtime.check()


@pytest.mark.parametrize("datatype", ["FP16", "FP64"])
def test_other_types_travel_too(
    server: InferenceServer, image: torch.Tensor, datatype: str
) -> None:
    server.datatype = datatype
    runtime = opened(server.url, datatype=datatype)
    given = outputs_of(runtime, image.to(runtime.dtype)).float()
    expected = small_net(dtype=torch.float32)(image[None])
    torch.testing.assert_close(given, expected, rtol=2e-2, atol=2e-2)


def test_no_request_has_more_rows_than_the_manifest_says(
    server: InferenceServer, image: torch.Tensor
) -> None:
    method = METHODS["occlusion"](window=4, stride=2)
    through(Scheduler(slice_seconds=10), opened(server.url, rows=6), method.plan(image, logits(1)))
    assert max(server.batches) == 6


@pytest.mark.parametrize("how", ["refuses_two", "lists_one", "mixes"])
def test_a_model_that_takes_one_row_gets_one(
    server: InferenceServer, image: torch.Tensor, how: str
) -> None:
    if how == "refuses_two":
        server.takes_at_most = 1
    if how == "lists_one":
        server.batch_axis = 1
    if how == "mixes":
        server.change = lambda outputs: outputs - outputs.mean(0, keepdims=True) / 2
    runtime = opened(server.url)
    server.batches.clear()
    through(Scheduler(slice_seconds=10), runtime, METHODS["occlusion"]().plan(image, logits(1)))
    assert set(server.batches) == {1}
    assert len(server.batches) > 2


def test_in_the_deterministic_mode_every_request_has_as_many_rows(
    server: InferenceServer, image: torch.Tensor
) -> None:
    runtime = opened(server.url, fixed=4)
    server.batches.clear()
    through(Scheduler(), runtime, METHODS["occlusion"]().plan(image, logits(1)))
    *requests, _ = server.batches  # the last asks whether it has changed
    assert set(requests) == {4}


def test_a_server_that_lists_no_tensors_is_judged_by_its_answers(
    server: InferenceServer, image: torch.Tensor
) -> None:
    server.lists_tensors = False
    expected = small_net(dtype=torch.float32)(image[None])
    torch.testing.assert_close(outputs_of(opened(server.url), image), expected)


def test_a_version_can_be_asked_for(server: InferenceServer) -> None:
    opened(server.url, model_version="3")
    assert "/v2/models/chest/versions/3/infer" in server.paths
    with pytest.raises(RemoteNotReady):
        opened(server.url, model_version="4")


def test_what_only_a_model_at_hand_could_give_is_refused(
    server: InferenceServer, image: torch.Tensor
) -> None:
    runtime = opened(server.url)

    def gradient() -> Plan[Step]:
        step: Step = yield Gradient(Clean(image), logits(1), at=(INPUT,))
        return step

    def tap() -> Plan[Step]:
        step: Step = yield Forward(Clean(image), logits(1), taps=(Tap("deep"),))
        return step

    for plan in (gradient, tap):
        with pytest.raises(UnservablePass, match="outputs alone"):
            run_alone(plan(), runtime)
    with pytest.raises(UnservablePass):
        runtime.variant(small_net())


# ---------------------------------------------------------- what can go wrong

Breaking = tuple[dict[str, Any], dict[str, Any], type[WhylightError], Kind]

AT_LOAD: dict[str, Breaking] = {
    "not ready": ({"ready": False}, {}, RemoteNotReady, Kind.WAIT),
    "no such model": ({}, {"model": "other"}, RemoteNotReady, Kind.WAIT),
    "busy": ({"status": 503}, {}, RemoteUnreachable, Kind.WAIT),
    "too many requests": ({"status": 429}, {}, RemoteUnreachable, Kind.WAIT),
    "server error": ({"status": 500}, {}, RemoteError, Kind.OURS),
    "redirect": ({"redirect": "http://127.0.0.1:9"}, {}, RemoteError, Kind.OURS),
    "no such input": ({}, {"input": "picture"}, RemoteTensorMismatch, Kind.OURS),
    "no such output": ({}, {"output": "scores"}, RemoteTensorMismatch, Kind.OURS),
    "listed type": ({"datatype": "FP64"}, {}, RemoteWrongDatatype, Kind.OURS),
    "half without bytes": (
        {"datatype": "FP16", "binary": False},
        {"datatype": "FP16"},
        RemoteWrongDatatype,
        Kind.OURS,
    ),
    "fixed batch": ({"batch_axis": 4}, {}, RemoteTensorMismatch, Kind.OURS),
    "rows lost": ({"change": lambda y: y[:0]}, {}, RemoteTensorMismatch, Kind.OURS),
    "not finite": ({"change": lambda y: y * np.nan}, {}, NonFiniteScore, Kind.DATA),
    "not finite, as JSON": (
        {"change": lambda y: y * np.inf, "binary": False},
        {},
        NonFiniteScore,
        Kind.DATA,
    ),
    "no outputs": ({"answer": lambda _: {"error": "x"}}, {}, RemoteMalformed, Kind.OURS),
    "answered type": (
        {"answer": lambda body: body | {"outputs": [body["outputs"][0] | {"datatype": "INT8"}]}},
        {},
        RemoteWrongDatatype,
        Kind.OURS,
    ),
    "answered shape": (
        {"answer": lambda body: body | {"outputs": [body["outputs"][0] | {"shape": [1, 7]}]}},
        {},
        RemoteMalformed,
        Kind.OURS,
    ),
    "no numbers": (
        {
            "binary": False,
            "answer": lambda body: (
                body | {"outputs": [body["outputs"][0] | {"data": [["a"], "b"]}]}
            ),
        },
        {},
        RemoteMalformed,
        Kind.OURS,
    ),
}


@pytest.mark.parametrize("case", AT_LOAD)
def test_a_model_that_cannot_be_had_says_why(server: InferenceServer, case: str) -> None:
    faults, words, expected, kind = AT_LOAD[case]
    for name, value in faults.items():
        setattr(server, name, value)
    with pytest.raises(expected) as told:
        opened(server.url, **words)
    assert type(told.value) is expected
    assert told.value.failure().kind is kind
    assert "SECRET" not in f"{told.value.failure()}"


def test_a_redirect_is_not_followed(server: InferenceServer) -> None:
    with serving(InferenceServer(MODEL)) as other:
        server.redirect = other.url
        with pytest.raises(RemoteError):
            opened(server.url)
        assert other.paths == []


def test_an_image_of_another_shape_is_told(server: InferenceServer) -> None:
    remote = named()
    with pytest.raises(RemoteTensorMismatch) as told:
        RemoteRuntime(Server(server.url, remote, 5), remote, "lab", (1, 24, 16))
    assert told.value.facts == {"expected": [-1, 1, 24, 16], "found": [-1, 1, 20, 16]}


def test_nobody_there_is_waited_for() -> None:
    with pytest.raises(RemoteUnreachable) as told:
        opened(f"http://127.0.0.1:{free_port()}")
    assert told.value.retryable


def test_a_slow_server_is_given_up_in_time(server: InferenceServer) -> None:
    server.seconds = 3.0
    began = time.monotonic()
    with pytest.raises(RemoteUnreachable, match="in time"):
        opened(server.url, seconds=0.3)
    assert time.monotonic() - began < 2.5


def test_a_request_that_the_server_fails_on_spares_the_jobs_beside_it(
    server: InferenceServer, image: torch.Tensor
) -> None:
    runtime = opened(server.url)
    server.binary = False
    runtime._server._binary = False
    bad = image.clone()
    bad[0, 3, 3] = torch.nan

    def plan(of: torch.Tensor) -> Plan[Step]:
        step: Step = yield Forward(Clean(of), logits(1))
        return step

    good, failed = through(Scheduler(), runtime, plan(image), plan(bad))
    assert isinstance(failed, NonFiniteScore)
    assert good.scores.isfinite().all()


# -------------------------------------------- a model that changes under us


def lost(runtime: RemoteRuntime) -> WhylightError:
    with pytest.raises(ReplicaChangedError) as told:
        runtime.check()
    assert told.value.reason is not None
    return told.value.reason


def test_the_same_model_passes_the_check(server: InferenceServer) -> None:
    runtime = opened(server.url)
    server.change = lambda outputs: outputs * (1 + 1e-5)  # rounding
    runtime.check()


def test_other_answers_are_noticed(server: InferenceServer) -> None:
    runtime = opened(server.url)
    server.change = lambda outputs: outputs * 1.01
    assert isinstance(lost(runtime), RemoteChanged)


def test_another_version_is_noticed_in_its_first_answer(
    server: InferenceServer, image: torch.Tensor
) -> None:
    runtime = opened(server.url)
    server.version = "4"
    lost_runtimes: list[Any] = []
    (found,) = through(
        Scheduler(on_lost=lost_runtimes.append),
        runtime,
        METHODS["occlusion"]().plan(image, logits(1)),
    )
    assert isinstance(found, RemoteChanged)
    assert lost_runtimes == [runtime]


def test_a_server_that_falls_silent_is_asked_once(
    server: InferenceServer, image: torch.Tensor
) -> None:
    runtime = opened(server.url)
    server.status = 503
    server.paths.clear()
    plans = [METHODS[name]().plan(image, logits(1)) for name in FORWARD_ONLY]
    found = through(Scheduler(), runtime, *plans)
    assert all(isinstance(each, RemoteUnreachable) for each in found)
    assert len(server.paths) == 1
    server.status = None
    assert isinstance(lost(runtime), RemoteUnreachable)  # it must be loaded anew
