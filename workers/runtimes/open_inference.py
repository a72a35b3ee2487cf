"""The Open Inference Protocol, version 2, over HTTP: what a server is asked, and its answers.

Triton, KServe, MLServer and others speak it. Tensors travel as raw bytes where
the server says that it has the extension ``binary_tensor_data``, else as JSON.
A redirect is never followed, no proxy is used, and no text that a server sends
is ever shown or logged: only numbers, tensors' shapes and words of few letters.

Notes
-----
Specification: kserve/open-inference-protocol, ``inference_rest.md`` and
``extension_binary_data.md``.
"""

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx
import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeInt, ValidationError

from service.domain.network import Remote
from service.errors.models import (
    NonFiniteScore,
    RemoteError,
    RemoteMalformed,
    RemoteNotReady,
    RemoteTensorMismatch,
    RemoteUnreachable,
    RemoteWrongDatatype,
)

BINARY: Final = "binary_tensor_data"
HEADER_LENGTH: Final = "Inference-Header-Content-Length"
TYPES: Final = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
"""numpy's word for each datatype of the protocol that is taken."""

OK: Final = 200
LATER: Final = frozenset({429, 502, 503, 504})
"""Statuses by which a server, or a proxy before it, says to try again."""

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of an answer beyond which it is read no further."""

WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}")


class Tensor(BaseModel):
    """A tensor in the description of a model."""

    name: str
    datatype: str
    shape: list[int]
    """-1 for an axis of any length."""


class ServerFacts(BaseModel):
    """What a server says of itself."""

    name: str = ""
    version: str = ""
    extensions: list[str] = []


class ModelFacts(BaseModel):
    """What a server says of a model."""

    platform: str = ""
    inputs: list[Tensor] = []
    """Some servers list none."""

    outputs: list[Tensor] = []


class Parameters(BaseModel):
    """What an answer tells of one tensor beside its numbers."""

    binary_data_size: NonNegativeInt | None = None


class Output(Tensor):
    """A tensor in an answer."""

    data: Any = None
    parameters: Parameters | None = None

    @property
    def bytes(self) -> int:
        """How many bytes of it follow the answer's JSON."""
        return (self.parameters and self.parameters.binary_data_size) or 0


class Answer(BaseModel):
    """The answer to a request for inference."""

    model_version: str | None = None
    outputs: list[Output]


Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of status 200."""

    content: bytes
    headers: Mapping[str, str]


class Server:
    """One model on one server; for one thread at a time.

    Parameters
    ----------
    address
        Where ``/v2`` lies, as an administrator lists it.
    remote
        The model's names there.
    seconds
        Longest wait for one answer.
    """

    def __init__(self, address: str, remote: Remote, seconds: float) -> None:
        self._remote = remote
        self._seconds = seconds
        self._binary = False
        version = f"/versions/{remote.model_version}" if remote.model_version else ""
        self._model = f"v2/models/{remote.model}{version}"
        self._client = httpx.Client(
            base_url=address,
            headers={"Accept-Encoding": "identity"},
            timeout=seconds,
            follow_redirects=False,
            trust_env=False,
        )

    def describe(self) -> tuple[ServerFacts, ModelFacts]:
        """Return what the server says of itself and of the model, once both are ready.

        Raises
        ------
        RemoteUnreachable, RemoteNotReady
            Not now, or not yet.
        RemoteError
            It refuses to say, or not by the protocol.
        """
        for path in ("v2/health/ready", f"{self._model}/ready"):
            self._demand_ready(path)
        server = _read(ServerFacts, self._ask("GET", "v2").content)
        self._binary = BINARY in server.extensions
        if self._remote.datatype == "FP16" and not self._binary:
            raise RemoteWrongDatatype(
                "Numbers of FP16 need a server with the extension for binary tensors.",
                pointer="/remote/datatype",
            )
        return server, _read(ModelFacts, self._ask("GET", self._model).content)

    def infer(
        self, batch: Mapping[str, NDArray[np.floating[Any]]]
    ) -> tuple[NDArray[np.float64], str | None]:
        """Return the model's output for a batch, shape ``(N, ...)``, and the version that answered.

        Parameters
        ----------
        batch
            By tensor's name, each shape ``(N, ...)``.

        Raises
        ------
        RemoteUnreachable
            Not now.
        RemoteError
            The server refuses, fails, or answers not by the protocol.
        RemoteTensorMismatch, RemoteWrongDatatype
            The answer holds no such tensor, or one of another shape or type.
        NonFiniteScore
            The batch holds what JSON cannot.
        """
        reply = self._ask("POST", f"{self._model}/infer", *self._request(batch))
        text, raw = _parted(reply)
        answer = _read(Answer, text)
        values = self._wanted(answer.outputs, raw)
        rows = len(batch[self._remote.input])
        if len(values) != rows:
            raise RemoteTensorMismatch(
                "The server's output has another number of rows than its input.",
                pointer="/remote/output",
                expected=rows,
                found=len(values),
            )
        return values, word(answer.model_version)

    # ------------------------------------------------------------------ requests

    def _demand_ready(self, path: str) -> None:
        try:
            self._ask("GET", path)
        except RemoteError as error:
            status = error.facts.get("status")
            if not isinstance(status, int) or status < 400:  # noqa: PLR2004 - a redirect
                raise
            raise RemoteNotReady(
                "The server says that it, or the model of this name and version, is not ready.",
                status=status,
            ) from None

    def _request(
        self, batch: Mapping[str, NDArray[np.floating[Any]]]
    ) -> tuple[bytes, dict[str, str]]:
        """Return body and headers that ask for the output of a batch."""
        type_ = TYPES[self._remote.datatype]
        tensors = {name: np.ascontiguousarray(each, type_) for name, each in batch.items()}
        inputs = [self._described(name, each) for name, each in tensors.items()]
        output: dict[str, Any] = {"name": self._remote.output}
        if not self._binary:
            body = {"inputs": inputs, "outputs": [output]}
            content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
            return content, {"Content-Type": "application/json"}
        output["parameters"] = {"binary_data": True}
        header = orjson.dumps({"inputs": inputs, "outputs": [output]})
        return b"".join([header, *(each.tobytes() for each in tensors.values())]), {
            "Content-Type": "application/octet-stream",
            HEADER_LENGTH: str(len(header)),
        }

    def _described(self, name: str, values: NDArray[np.floating[Any]]) -> dict[str, Any]:
        """Return what a request's JSON says of one tensor; its numbers too, if bytes cannot."""
        told = {"name": name, "shape": values.shape, "datatype": self._remote.datatype}
        if self._binary:
            return told | {"parameters": {"binary_data_size": values.nbytes}}
        if not np.isfinite(values).all():
            raise NonFiniteScore("JSON cannot take what is no number to the model's server.")
        return told | {"data": values.ravel()}

    def _ask(
        self, method: str, path: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Ask, and once more if the connection broke: a kept one may have been closed."""
        try:
            return self._once(method, path, content, headers or {})
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            return self._again(method, path, content, headers or {})
        except httpx.TransportError as error:
            raise _unreachable(error) from None

    def _again(self, method: str, path: str, content: bytes, headers: Mapping[str, str]) -> Reply:
        try:
            return self._once(method, path, content, headers)
        except httpx.TransportError as error:
            raise _unreachable(error) from None

    def _once(self, method: str, path: str, content: bytes, headers: Mapping[str, str]) -> Reply:
        until = time.monotonic() + self._seconds
        with self._client.stream(method, path, content=content, headers=headers) as response:
            _demand_ok(response)
            chunks, size = [], 0
            for chunk in response.iter_raw():
                chunks.append(chunk)
                size += len(chunk)
                if size > LARGEST:
                    raise RemoteMalformed("The server's answer is too long.", limit=LARGEST)
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("")
            return Reply(b"".join(chunks), response.headers)

    # ------------------------------------------------------------------- answers

    def _wanted(self, outputs: Sequence[Output], raw: bytes) -> NDArray[np.float64]:
        """Return the numbers of the manifest's output."""
        start = 0
        for each in outputs:
            if each.name == self._remote.output:
                return self._numbers(each, raw[start : start + each.bytes])
            start += each.bytes
        raise RemoteTensorMismatch(
            "The server's answer has no output of this name.", pointer="/remote/output"
        )

    def _numbers(self, output: Output, raw: bytes) -> NDArray[np.float64]:
        demand_datatype(output, self._remote.datatype, "/remote/datatype")
        try:
            if output.data is None:
                values = np.frombuffer(raw, TYPES[output.datatype]).astype(np.float64)
            else:  # null is how some servers write a number that is none
                values = np.asarray(output.data, np.float64)
        except (ValueError, TypeError):
            raise RemoteMalformed("The server's output does not hold numbers.") from None
        if min(output.shape, default=0) < 0 or math.prod(output.shape) != values.size:
            raise RemoteMalformed("The server's output has not as many numbers as its shape says.")
        return values.reshape(output.shape)


def demand_datatype(tensor: Tensor, datatype: str, pointer: str) -> None:
    """Raise `RemoteWrongDatatype` unless a tensor holds numbers of the manifest's type."""
    if tensor.datatype != datatype:
        raise RemoteWrongDatatype(
            "The server's tensor holds numbers of another type than the manifest says.",
            pointer=pointer,
            expected=datatype,
            found=word(tensor.datatype),
        )


def word(text: str | None) -> str | None:
    """Return a server's word if it is short and plain enough to be repeated, else `None`."""
    return text if text is not None and WORD.fullmatch(text) else None


def _unreachable(error: httpx.TransportError) -> RemoteUnreachable:
    late = isinstance(error, httpx.TimeoutException)
    return RemoteUnreachable(
        "The server did not answer in time."
        if late
        else "There is no connection to the server, or it broke off.",
    )


def _demand_ok(response: httpx.Response) -> None:
    """Raise what another status than 200 means, or an encoding that was not asked for."""
    status = response.status_code
    if status in LATER:
        raise RemoteUnreachable("The server says to try again later.", status=status)
    if response.is_redirect:
        raise RemoteError(
            "The server redirects elsewhere, which is not followed; list the right address.",
            status=status,
        )
    if status != OK:
        raise RemoteError("The server refused the request or failed on it.", status=status)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise RemoteMalformed("The server's answer is compressed, which was not asked for.")


def _parted(reply: Reply) -> tuple[bytes, bytes]:
    """Return an answer's JSON, and the raw tensors that follow it."""
    length = reply.headers.get(HEADER_LENGTH)
    if length is None:
        return reply.content, b""
    if not length.isdecimal() or int(length) > len(reply.content):
        raise RemoteMalformed("The server's answer is shorter than its header says.")
    return reply.content[: int(length)], reply.content[int(length) :]


def _read(kind: type[Body], content: bytes) -> Body:
    try:
        return kind.model_validate_json(content)
    except ValidationError:
        raise RemoteMalformed("The server's answer is not what the protocol says.") from None
