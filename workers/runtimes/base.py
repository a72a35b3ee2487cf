"""What serves passes: one model replica on one device, with one owner thread.

The scheduler unites what one job asks of identical rows into a :class:`Work`,
cuts it into :class:`Segment` values and hands a batch of them to
:meth:`Runtime.serve`. The runtime alone says what may share a batch
(:meth:`Runtime.group`), builds the batch and moves the tensors.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from service.domain.explanation import RemoteModel
from service.domain.manifest import Manifest
from service.errors.base import WhylightError
from service.registry import Registry
from service.settings import RemoteSettings
from workers.passes import Ability, Exclusive, Rule, Scalar, Tap
from workers.rows import Rows, ablated
from workers.tokens import Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """One row set and everything that one job asks of it."""

    rows: Rows
    targets: tuple[Scalar, ...] = ()
    """Distinct; ordered so that equal patterns of `places` can share a batch."""

    places: tuple[tuple[str, ...], ...] = ()
    """For each target, where its gradient is wanted; ``()`` for the score alone."""

    taps: tuple[Tap, ...] = ()
    outputs: bool = False
    rule: Rule = Rule.PLAIN

    @property
    def at(self) -> tuple[str, ...]:
        """Every place where some gradient is wanted, in alphabetical order."""
        return tuple(sorted({place for places in self.places for place in places}))

    @property
    def ablated(self) -> str | None:
        """The layer of whose output each row lacks a channel, if so."""
        rows = ablated(self.rows)
        return None if rows is None else rows.place


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Rows ``start`` to ``stop`` of a work: its share of one batch."""

    work: Work
    start: int
    stop: int

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What a batch gave for one segment of it; tensors may be views of the batch's.

    On CUDA the device may work on them still.
    """

    scores: Tensor | None = None
    """Shape ``(n, K)``, targets in the work's order."""

    gradients: Mapping[tuple[int, str], Tensor] = field(default_factory=dict)
    """By target's index in the work and place, each shape ``(n, ...)``."""

    activations: Mapping[str, Tensor] = field(default_factory=dict)
    taps: Mapping[Tap, Tensor] = field(default_factory=dict)
    outputs: Tensor | None = None

    read: Callable[[], tuple[Tensor | None, Tensor | None]] | None = None
    """Waits for this batch, but for no later one, and returns copies of scores and outputs.

    `None` where they lie in the host's memory already.
    """


@dataclass(frozen=True, slots=True)
class Fit:
    """How many rows of a group one batch may hold."""

    rows: int | None = None
    """Limit whatever memory there is: 1 for a model that mixes rows; `None` without one."""

    fixed: bool = False
    """Whether every batch is padded to `rows`, the deterministic mode."""

    row_bytes: int = 0
    """Memory that a row takes on the device; 0 if it takes none."""

    def within(self, memory: int) -> int:
        """Return the rows for which `memory` bytes are enough, at least 1."""
        most = sys.maxsize if self.rows is None else self.rows
        return most if self.row_bytes == 0 else max(1, min(most, memory // self.row_bytes))


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """A declared layer, as the probe found it."""

    name: str
    shape: tuple[int, ...]
    """Shape of its output for one row."""

    stride: tuple[float, ...]
    """Input pixels to a cell, along each spatial axis; empty without such axes."""

    reason: str = ""
    """Why it was chosen, where the package names no layer."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a replica was found able to do, for the catalog."""

    abilities: frozenset[Ability]
    layers: tuple[LayerFacts, ...]
    refused: Mapping[str, str]
    """Declared layers that cannot be used, with the reason."""

    outputs: tuple[int, ...]
    """Shape of the output for one row."""

    mixes_rows: bool
    """Whether a row's result depends on its neighbors; such a model runs unmerged."""

    row_seconds: Mapping[str, float]
    """Measured seconds a row: ``forward`` and, if there is one, ``gradient``."""

    row_bytes: Mapping[str, int]
    """Measured bytes a row, likewise."""

    fixed_bytes: int = 0
    """Measured bytes on the device whatever the number of rows: weights, for the most part."""

    cheap_heads: frozenset[str] = frozenset()
    """Layers from which the way to the score costs next to nothing beside a forward pass."""

    linear_heads: frozenset[str] = frozenset()
    """Layers of whose mean over the grid alone every output is a linear function."""

    tokens: Tokens | None = None
    """Where a transformer's tokens lie."""

    attentions: tuple[str, ...] = ()
    """Places of attention weights, ``(rows, heads, tokens, tokens)``, from the first block on."""

    unable: Mapping[Ability, str] = field(default_factory=dict)
    """Abilities that this model in particular lacks, with the reason."""

    surrogate: frozenset[Ability] = frozenset()
    """Abilities of a network that stands in for the model, and not of the model itself."""

    remote: RemoteModel | None = None
    """What its server reports, of a model that runs elsewhere."""

    difference: float | None = None
    """By how much the two differ at most on noise, as the manifest counts it; `None` if one."""

    @property
    def stood_in(self) -> bool:
        """Whether a network stands in for the model."""
        return self.difference is not None

    def computes(self, needs: frozenset[Ability]) -> bool:
        """Tell whether the model itself serves what needs these, and not what stands in for it."""
        return needs.isdisjoint(self.surrogate)


class ReplicaChangedError(Exception):
    """The replica is not as it was when it was loaded; it must be dropped.

    Parameters
    ----------
    reason
        What those who used it are told, where it was no fault of the work done on it.
    """

    def __init__(self, reason: WhylightError | None = None) -> None:
        super().__init__()
        self.reason = reason


class Runtime(Protocol):
    """One model replica; every method is for the owner thread alone."""

    @property
    def device(self) -> torch.device:
        """Where images are to lie before they are handed to a plan."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the model."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row, ``(C, *spatial)``."""

    @property
    def fixed_rows(self) -> int | None:
        """Rows that every batch is padded to, the deterministic mode; `None` outside of it."""

    @property
    def probed(self) -> Probe:
        """What the replica can do; measured once."""

    @property
    def extra_bytes(self) -> int:
        """Memory that copies of the model and captured passes take; any thread may ask."""

    def recall(self, probed: Probe) -> None:
        """Take as known what was probed of the same package before."""

    def group(self, work: Work) -> Hashable:
        """Return a key; works with equal keys may share a batch.

        Raises
        ------
        UnservablePass
            If this runtime cannot serve such a work.
        """

    def fits(self, group: Hashable) -> Fit:
        """Return what a batch of the group may hold, and what of memory that takes."""

    def serve(self, group: Hashable, segments: Sequence[Segment]) -> list[Served | Exception]:
        """Run one batch; one answer for each segment, in order.

        An error that is one segment's own fault is that segment's answer;
        anything else is raised and concerns the whole batch.
        """

    def lend(self, work: Exclusive, until: float) -> Any:
        """Lend the model to `work` until a moment of `time.monotonic`."""

    def variant(self, model: nn.Module | None) -> "Runtime":
        """Serve the model as it is, or a copy with its weights changed, a row at a time.

        Parameters
        ----------
        model
            A copy of what was lent; `None` for the model as it is.

        Raises
        ------
        UnservablePass
            If a copy is given and this runtime has no model to lend.
        """

    def recast(self, dtype: torch.dtype) -> "Runtime":
        """Serve a copy of the model that computes in another floating type.

        Images are handed to it, and steps come of it, in its `dtype`; that is
        float32 for a copy in bfloat16.

        Raises
        ------
        UnservablePass
            If this runtime has no model to copy.
        """

    def check(self) -> None:
        """Raise `ReplicaChangedError` unless the replica is as it was at start."""


class Opener(ABC):
    """How packages of one runtime are opened; registered under the manifest's word for it.

    Parameters
    ----------
    remote
        Which servers an administrator allows to be asked; none if not given.
    """

    name: ClassVar[str]

    def __init__(self, remote: RemoteSettings | None = None) -> None:
        self.remote = remote or RemoteSettings()

    @abstractmethod
    def open(
        self,
        manifest: Manifest,
        folder: Path,
        shape: tuple[int, ...],
        device: torch.device,
        fixed_rows: int | None = None,
    ) -> Callable[[], Runtime]:
        """Read an unpacked package in any thread.

        Parameters
        ----------
        folder
            Where the package's files lie, their digests checked.
        shape
            Shape of one row, ``(C, *spatial)``.
        fixed_rows
            As of `Runtime`.

        Returns
        -------
        Callable
            Makes the runtime, in the device's owner thread.

        Raises
        ------
        ModelUnavailable
            The package does not hold what the runtime needs.
        ModelSilent
            The server that the model runs on does not answer.
        """


RUNTIMES: Registry[Opener] = Registry("workers.runtimes", "whylight.runtimes")
