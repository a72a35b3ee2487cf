"""Models that run elsewhere: forward passes by a server of the Open Inference Protocol.

A package says which server, by a name or an address that the administrator has
listed, which model and which tensors. Whether the model is still the one that
passed its self-tests cannot be seen here. So it is asked: every answer's version
is held against the first one's, and after each job the server must answer one
and the same input as it did when the model was loaded.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from service.domain.explanation import RemoteModel
from service.domain.manifest import Manifest
from service.domain.network import Remote, Surrogate
from service.errors.base import WhylightError
from service.errors.models import (
    ModelSilent,
    NonFiniteScore,
    RemoteChanged,
    RemoteNotAllowed,
    RemoteTensorMismatch,
    UnservablePass,
)
from workers.endings import Ending, ending_of
from workers.passes import Ability, Exclusive
from workers.rows import INPUT, VALUES
from workers.runtimes.base import (
    RUNTIMES,
    Fit,
    Opener,
    Probe,
    ReplicaChangedError,
    Segment,
    Served,
    Work,
)
from workers.runtimes.batch import answered, filled, row_shape, spans, usual_seconds
from workers.runtimes.open_inference import (
    ModelFacts,
    Server,
    ServerFacts,
    Tensor,
    demand_datatype,
    word,
)
from workers.runtimes.torch_probe import beside, noise
from workers.tabular import Companions

ALONE: Final = "The server of a model gives its outputs alone."
ROUNDING: Final = Surrogate(tolerance=1e-5)
"""What a row's answer may move by when its neighbor changes; a server adds in no fixed order."""


@dataclass(frozen=True, slots=True)
class Group:
    """What works must have in common to share a request."""

    shape: tuple[int, ...]


class RemoteRuntime:
    """One model on one server.

    Parameters
    ----------
    server
        The model's server.
    remote
        The manifest's words for the model.
    endpoint
        The server's name in the administrator's list.
    shape
        Shape of one row, ``(C, *spatial)``.
    layers
        Layers that the package names; none of them can be had.
    fixed_rows
        Pad every batch to this many rows, if the model takes as many.
    channels_last
        Whether the model wants ``(N, *spatial, C)``.
    companions
        The numbers beside the image, if it takes any.
    beside
        Names of the server's tensors for them, in their order.
    ending
        What is made of outputs that do not count as they are.

    Raises
    ------
    ModelSilent
        The server does not answer, or is not ready.
    ModelUnavailable
        Its tensors are not those of the manifest.
    NonFiniteScore
        It answers a trial input with what is no number.
    """

    device = torch.device("cpu")
    extra_bytes = 0

    def __init__(
        self,
        server: Server,
        remote: Remote,
        endpoint: str,
        shape: Sequence[int],
        *,
        layers: Sequence[str] = (),
        fixed_rows: int | None = None,
        channels_last: bool = False,
        companions: Companions | None = None,
        beside: Sequence[str] = (),
        ending: Ending | None = None,
    ) -> None:
        self._ending = ending
        self.dtype = torch.float64 if remote.datatype == "FP64" else torch.float32
        self.shape = tuple(shape)
        self._server = server
        self._limit = Surrogate(tolerance=remote.tolerance)
        self._channels_last = channels_last
        self._companions = companions or Companions.none()
        self._names = (remote.input, *beside)
        facts, model = server.describe()
        self._rows = self._demand_tensors(model, remote)
        self.fixed_rows = fixed_rows and min(fixed_rows, self._rows)
        self._lost: ModelSilent | None = None
        self._version: str | None = None
        one = noise(self, 1)
        self._known, self._version = self._first(one)
        self.probed = self._probe(one, layers, _told(facts, model, remote, endpoint, self._version))

    def recall(self, probed: Probe) -> None:
        """Go on by what was asked of the server just now: it may serve otherwise than before."""

    def _demand_tensors(self, model: ModelFacts, remote: Remote) -> int:
        """Hold what the server lists against the manifest; return the most rows of a request."""
        channels, *spatial = self.shape
        image = (*spatial, channels) if self._channels_last else self.shape
        most = remote.rows
        numbers = [(width,) for width in self._companions.widths]
        taken = zip(self._names, (image, *numbers), strict=True)
        for name, row in taken if model.inputs else ():
            pointer = "/remote/input" if name == remote.input else "/inputs"
            given = _named(model.inputs, name, pointer)
            demand_datatype(given, remote.datatype, "/remote/datatype")
            most = _most_rows(given, row, most, pointer)
        if model.outputs:
            wanted = _named(model.outputs, remote.output, "/remote/output")
            demand_datatype(wanted, remote.datatype, "/remote/datatype")
        return most

    def _first(self, one: torch.Tensor) -> tuple[list[float], str | None]:
        """Return the answer to the trial input, and the version that gave it."""
        values, version = self._server.infer(self._laid(one))
        if not np.isfinite(values).all():
            raise NonFiniteScore("The server answers a trial input with what is no number.")
        return values[0].ravel().tolist(), version

    def _probe(self, one: torch.Tensor, layers: Sequence[str], told: RemoteModel) -> Probe:
        """Find out what the server can do."""
        outputs = self._run(one)
        return Probe(
            abilities=frozenset({Ability.FORWARD}),
            layers=(),
            refused=dict.fromkeys(layers, ALONE),
            outputs=tuple(outputs.shape[1:]),
            mixes_rows=self._rows > 1 and self._mixes_rows(),
            row_seconds={"forward": usual_seconds(lambda: self._run(one))},
            row_bytes={"forward": one.element_size() * one.numel()},
            unable=dict.fromkeys(set(Ability) - {Ability.FORWARD}, ALONE),
            remote=told,
        )

    def _mixes_rows(self) -> bool:
        """Tell whether a row's answer depends on its neighbor; also true if two are refused."""
        try:
            return any(self._differs(pair, place) for place, pair in enumerate(beside(self)))
        except ModelSilent:
            raise
        except WhylightError:
            return True

    def _differs(self, pair: tuple[torch.Tensor, torch.Tensor], place: int) -> bool:
        """Tell whether a row that is the same in two batches is answered differently."""
        first, second = (self._said(each)[place].ravel().tolist() for each in pair)
        return ROUNDING.difference(first, second) > ROUNDING.tolerance

    def group(self, work: Work) -> Hashable:
        """Return a key; works with equal keys may share a batch.

        Raises
        ------
        UnservablePass
            If more is wanted than scores and outputs.
        """
        if work.at or work.taps or work.ablated is not None:
            raise UnservablePass(ALONE)
        return Group(row_shape(work, self._companions.count))

    def fits(self, group: Hashable) -> Fit:  # noqa: ARG002 - all works are alike
        """Return how many rows a request may hold; they take no memory of this device."""
        fixed = self.fixed_rows is not None
        return Fit(1 if self.probed.mixes_rows else self.fixed_rows or self._rows, fixed)

    def serve(self, group: Hashable, segments: Sequence[Segment]) -> list[Served | Exception]:
        """Ask for one batch; a silent server is every segment's answer."""
        rows = sum(segment.count for segment in segments)
        size = rows if self.fixed_rows is None else max(rows, self.fits(group).rows or 0)
        batch, failures = filled(segments, size, self.dtype, self.device)
        try:
            outputs = self._run(batch[INPUT], batch.get(VALUES))
        except ModelSilent as error:  # to ask again for each half would find the same
            return [error for _ in segments]
        return [
            failures.get(k) or answered(segment.work, outputs[span])
            for k, (segment, span) in enumerate(zip(segments, spans(segments), strict=True))
        ]

    def lend(self, work: Exclusive, until: float) -> NoReturn:  # noqa: ARG002 - nothing to lend
        """Refuse: the model is not here.

        Raises
        ------
        UnservablePass
            Always.
        """
        raise UnservablePass(ALONE)

    def variant(self, model: nn.Module | None) -> "RemoteRuntime":
        """Serve the same model; it has no other weights, and rows share requests all the same.

        Raises
        ------
        UnservablePass
            If a model is given.
        """
        if model is not None:
            raise UnservablePass("A model on a server cannot be served with other weights.")
        return self

    def recast(self, dtype: torch.dtype) -> NoReturn:  # noqa: ARG002 - nothing to copy
        """Refuse: the model is not here.

        Raises
        ------
        UnservablePass
            Always.
        """
        raise UnservablePass("A model on a server computes in the type that the server chose.")

    def check(self) -> None:
        """Raise `ReplicaChangedError` unless the server answers as it did at the start."""
        try:
            answer = self._said(noise(self, 1))[0].ravel().tolist()
        except WhylightError as error:
            raise ReplicaChangedError(error) from None
        if len(answer) != len(self._known) or (
            self._limit.difference(self._known, answer) > self._limit.tolerance
        ):
            raise ReplicaChangedError(
                RemoteChanged("The server answers otherwise than when the model was loaded.")
            )

    def _run(self, batch: torch.Tensor, values: torch.Tensor | None = None) -> torch.Tensor:
        """Return what counts of a batch's outputs; errors as of `_said`."""
        said = self._said(batch, values)
        return said if self._ending is None else self._ending.said(batch, said)

    def _said(self, batch: torch.Tensor, values: torch.Tensor | None = None) -> torch.Tensor:
        """Return the outputs of a batch, shape ``(N, ...)``; without values, beside baselines.

        Raises
        ------
        ModelSilent
            The server fell silent, or another version answers than at the start: from
            then on, until the model is loaded again.
        """
        if self._lost is not None:
            raise self._lost
        try:
            outputs, version = self._server.infer(self._laid(batch, values))
            if version != self._version:
                raise RemoteChanged("Another version of the model answers than when it was loaded.")
        except ModelSilent as error:
            self._lost = error
            raise
        return torch.from_numpy(outputs).to(self.dtype)

    def _laid(self, batch: torch.Tensor, values: torch.Tensor | None = None) -> dict[str, Any]:
        """Return a batch as the server's tensors, with their axes as it wants them."""
        given = (batch,) if values is None else (batch, values)
        image, *numbers = self._companions(None, given)
        image = image.movedim(1, -1) if self._channels_last else image
        tensors = (image, *numbers)
        return {name: each.numpy() for name, each in zip(self._names, tensors, strict=True)}


def _named(tensors: Sequence[Tensor], name: str, pointer: str) -> Tensor:
    """Return the tensor of a name that the server lists."""
    for each in tensors:
        if each.name == name:
            return each
    raise RemoteTensorMismatch(
        "The server's model has no tensor of this name.",
        pointer=pointer,
        found=[word(each.name) for each in tensors],
    )


def _most_rows(tensor: Tensor, row: Sequence[int], most: int, pointer: str) -> int:
    """Return how many rows a request may have; refuse a tensor that takes no such rows."""
    batch, *axes = tensor.shape or [0]
    fits = len(axes) == len(row) and all(
        axis in (-1, wanted) for axis, wanted in zip(axes, row, strict=True)
    )
    if not fits or batch not in (-1, 1):
        raise RemoteTensorMismatch(
            "The server's input takes no rows of the shape that the manifest's steps and variables"
            " make; its first axis must be free, or 1.",
            pointer=pointer,
            expected=[-1, *row],
            found=[*tensor.shape],
        )
    return most if batch == -1 else 1


def _told(
    facts: ServerFacts, model: ModelFacts, remote: Remote, endpoint: str, version: str | None
) -> RemoteModel:
    """Return what the server reported, in words that may be repeated."""
    software = (word(facts.name) or "unknown", word(facts.version) or "")
    return RemoteModel(
        endpoint=endpoint,
        server=" ".join(software).strip(),
        model=remote.model,
        model_version=version,
        platform=word(model.platform) or "unknown",
    )


@RUNTIMES.register("remote")
class RemoteOpener(Opener):
    """Models on servers that an administrator has listed."""

    @override
    def open(
        self,
        manifest: Manifest,
        folder: Path,
        shape: tuple[int, ...],
        device: torch.device,
        fixed_rows: int | None = None,
    ) -> Callable[[], RemoteRuntime]:
        """Ask the server what it has, in the calling thread: the owner's must not wait for it."""
        remote = manifest.remote
        listed = None if remote is None else self.remote.endpoint(remote.endpoint)
        if remote is None or listed is None:
            raise RemoteNotAllowed(
                "The administrator's list has no server of this name or address; add it to"
                " WHYLIGHT_REMOTE__ENDPOINTS of the workers.",
                pointer="/remote/endpoint",
            )
        name, address = listed
        runtime = RemoteRuntime(
            Server(address, remote, self.remote.timeout.total_seconds()),
            remote,
            name,
            shape,
            layers=[layer.name for layer in manifest.explain.layers],
            fixed_rows=fixed_rows,
            channels_last=manifest.image.layout == "NHWC",
            companions=Companions.of(manifest),
            beside=[each.name for each in manifest.tabular],
            ending=ending_of(manifest),
        )
        return lambda: runtime
