"""A small server of the Open Inference Protocol, version 2, for ONNX models on onnxruntime.

It keeps strictly to the protocol's REST chapter and its extension for binary
tensors: requests that leave anything out, name another tensor or type, or bring
another number of bytes than they say are refused with 400. It can be told to
misbehave, which no real server can.
"""

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from numpy.typing import NDArray

from tests.support.ports import free_port

TYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
LENGTH = "Inference-Header-Content-Length"
STARTS_WITHIN = 20.0


@dataclass
class InferenceServer:
    """One model behind the protocol; every field may be changed while it is served."""

    model: bytes
    """ONNX; one output."""

    name: str = "chest"
    version: str | None = "3"
    datatype: str = "FP32"
    binary: bool = True
    ready: bool = True
    lists_tensors: bool = True
    batch_axis: int = -1
    takes_at_most: int = 1024
    seconds: float = 0.0
    """Delay of each answer."""

    status: int | None = None
    """Answer inference with this and nothing else."""

    redirect: str | None = None
    """Answer everything with a redirect to this address."""

    change: Callable[[NDArray[Any]], NDArray[Any]] = lambda outputs: outputs
    """Changes the outputs."""

    answer: Callable[[dict[str, Any]], Any] = lambda body: body
    """Changes the JSON of an answer."""

    batches: list[int] = field(default_factory=list)
    """Rows of each request."""

    paths: list[str] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            self.model, options, providers=["CPUExecutionProvider"]
        )
        self._inputs, self._output = self._session.get_inputs(), self._session.get_outputs()[0]

    @property
    def output(self) -> str:
        """Name of the output."""
        return str(self._output.name)

    def app(self) -> FastAPI:
        """Return the application."""
        app = FastAPI()

        @app.middleware("http")
        async def misbehave(request: Request, proceed: Any) -> Response:
            self.paths.append(request.url.path)
            if self.redirect is not None:
                return RedirectResponse(self.redirect + request.url.path)
            await asyncio.sleep(self.seconds)
            answer: Response = await proceed(request)
            return answer

        @app.get("/v2")
        def server() -> dict[str, Any]:
            extensions = ["binary_tensor_data"] if self.binary else []
            return {"name": "small", "version": "1.0", "extensions": extensions}

        @app.get("/v2/health/ready")
        def alive() -> Response:
            return Response(status_code=200 if self.ready else 400)

        for place in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            app.get(f"{place}/ready")(self._is_ready)
            app.get(place)(self._describe)
            app.post(f"{place}/infer")(self._infer)
        return app

    def _known(self, name: str, version: str | None) -> None:
        if name != self.name or version not in (None, self.version):
            raise HTTPException(404, "no such model")

    def _is_ready(self, name: str, version: str | None = None) -> Response:
        self._known(name, version)
        return Response(status_code=200 if self.ready else 400)

    def _describe(self, name: str, version: str | None = None) -> dict[str, Any]:
        self._known(name, version)
        tensors = [
            {
                "name": each.name,
                "datatype": self.datatype,
                "shape": [self.batch_axis, *(n if isinstance(n, int) else -1 for n in rest)],
            }
            for each in (*self._inputs, self._output)
            for _, *rest in [each.shape]
        ]
        listed = {"inputs": tensors[:-1], "outputs": tensors[-1:]} if self.lists_tensors else {}
        return {"name": name, "versions": [self.version], "platform": "onnxruntime_onnx", **listed}

    async def _infer(self, name: str, request: Request, version: str | None = None) -> Response:
        self._known(name, version)
        if self.status is not None:
            return Response("PATIENT^SECRET", status_code=self.status)
        body = await request.body()
        length = request.headers.get(LENGTH)
        if length is not None and not self.binary:
            raise HTTPException(400, "no such extension")
        header = json.loads(body if length is None else body[: int(length)])
        raw = b"" if length is None else body[int(length) :]
        batch = self._batch(header, raw)
        self.batches.append(len(next(iter(batch.values()))))
        (outputs,) = self._session.run([self._output.name], batch)
        return self._answer(header, self.change(np.asarray(outputs)))

    def _batch(self, header: dict[str, Any], raw: bytes) -> dict[str, NDArray[np.float32]]:
        """Read every input, strictly; raw bytes follow each other in the order of the header."""
        batch, left = {}, raw
        for given in header["inputs"]:
            size = given.get("parameters", {}).get("binary_data_size", 0)
            if given["datatype"] != self.datatype or given["shape"][0] > self.takes_at_most:
                raise HTTPException(400, "no such input")
            batch[given["name"]] = self._tensor(given, left[:size])
            left = left[size:]
        if left or {each.name for each in self._inputs} != batch.keys():
            raise HTTPException(400, "other inputs than the model has")
        return batch

    def _tensor(self, given: dict[str, Any], raw: bytes) -> NDArray[np.float32]:
        size = given.get("parameters", {}).get("binary_data_size")
        count = math.prod(given["shape"])
        if size is None:
            if self.datatype == "FP16" or len(given["data"]) != count:
                raise HTTPException(400, "not as many numbers as the shape says")
            values = np.array(given["data"], np.float64)
        else:
            if "data" in given or not size == len(raw) == count * int(self.datatype[2:]) // 8:
                raise HTTPException(400, "not as many bytes as the shape says")
            values = np.frombuffer(raw, TYPES[self.datatype])
        return values.astype(np.float32).reshape(given["shape"])

    def _answer(self, header: dict[str, Any], outputs: NDArray[Any]) -> Response:
        (wanted,) = header["outputs"]
        if wanted["name"] != self.output:
            raise HTTPException(400, "no such output")
        values = np.ascontiguousarray(outputs, TYPES[self.datatype])
        given: dict[str, Any] = {
            "name": self.output,
            "shape": [*values.shape],
            "datatype": self.datatype,
        }
        binary = wanted.get("parameters", {}).get("binary_data", False)
        if binary:
            given["parameters"] = {"binary_data_size": values.nbytes}
        else:
            given["data"] = values.ravel().tolist()
        body: dict[str, Any] = {"model_name": self.name, "outputs": [given]}
        if self.version is not None:
            body["model_version"] = self.version
        text = json.dumps(self.answer(body)).encode()
        if not binary:
            return Response(text, media_type="application/json")
        return Response(
            text + values.tobytes(),
            media_type="application/octet-stream",
            headers={LENGTH: str(len(text))},
        )


@contextmanager
def serving(server: InferenceServer) -> Iterator[InferenceServer]:
    """Serve on loopback until the block ends."""
    port = free_port()
    config = uvicorn.Config(
        server.app(), port=port, log_config=None, access_log=False, timeout_graceful_shutdown=2
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, name="inference")
    thread.start()
    until = time.monotonic() + STARTS_WITHIN
    while not running.started:
        assert thread.is_alive()
        assert time.monotonic() < until
        time.sleep(0.02)
    server.url = f"http://127.0.0.1:{port}"
    try:
        yield server
    finally:
        running.should_exit = True
        thread.join(STARTS_WITHIN)
