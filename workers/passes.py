"""The three kinds of model pass: what methods ask and runtimes serve.

A method is a generator of passes; it never touches the model. It yields one
pass, or a tuple of passes that do not need each other, and is resumed with one
:class:`Step` for each::

    step = yield Gradient(Clean(image), targets, at=("features.7",))
    first, second = yield Forward(Clean(image), targets), Forward(Given(rows), targets)

A pass names a *set* of rows; the scheduler cuts it into chunks and shares
batches between jobs. With `fold`, each chunk is handed over and forgotten, and
the plan is resumed with the empty :class:`Step` of the whole pass.
"""

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn
from typing_extensions import override

from workers.rows import INPUT, Rows

R = TypeVar("R")


class Ability(StrEnum):
    """What a runtime can be asked for; a method's needs are the passes it yields."""

    FORWARD = "forward"
    """Scores of any rows."""

    ACTIVATIONS = "activations"
    """The output of a declared layer."""

    INPUT_GRADIENT = "input_gradient"
    """The gradient of a score with respect to the input."""

    LAYER_GRADIENT = "layer_gradient"
    """The gradient of a score with respect to a declared layer's output."""

    RECTIFIER_RULES = "rectifier_rules"
    """The gradient with respect to the input, with another derivative for every ReLU."""

    ABLATION = "ablation"
    """Scores of rows with channels of a declared layer's output set to zero."""

    LINEAR_HEAD = "linear_head"
    """A declared layer whose mean over its grid decides the scores, and linearly."""

    ATTENTION = "attention"
    """The attention weights of every block, and the gradient of a score there."""

    EXCLUSIVE = "exclusive"
    """The model itself, alone, for a bounded time."""

    RESCALE_RULE = "rescale_rule"
    """DeepLIFT's rescale rule: contributions that add up to the change in score."""

    PATH_GRADIENT = "path_gradient"
    """Gradients with respect to the input that add up to the change in score along a way."""


class Rule(StrEnum):
    """How derivatives are taken."""

    PLAIN = "plain"

    GUIDED = "guided"
    """A ReLU passes on only what is positive, where it was active."""

    DECONVOLUTION = "deconvolution"
    """A ReLU passes on only what is positive, wherever it was active."""


class TimeUp(Exception):
    """Thrown into a plan at its yield when its job's time is up.

    A plan that catches it may return what it has, marked as partial.
    """


class Scalar(Protocol):
    """A resolved target: one number to a row; frozen and hashable."""

    @property
    def weights(self) -> tuple[tuple[int, float], ...] | None:
        """``(output index, weight)`` pairs when linear in the outputs, else `None`."""

    def __call__(self, outputs: Tensor) -> Tensor:
        """Reduce outputs ``(rows, ...)`` to ``(rows,)``, differentiably, row by row."""

    @override
    def __hash__(self) -> int:
        """Hash by value, so that equal targets are computed once."""


Targets = tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Tap:
    """A wish to see a declared layer's output, or a block's attention weights."""

    place: str


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What a pass gave for some of its rows; the plan owns every tensor."""

    start: int
    """Index of the first row."""

    count: int
    """Number of rows; all of the pass's once it is done."""

    scores: Tensor | None = None
    """Float32 (float64 for a float64 model), shape ``(n, K)``, targets in the pass's order."""

    taps: Mapping[Tap, Tensor] = field(default_factory=dict)
    """Each shape ``(n, ...)``."""

    activations: Mapping[str, Tensor] = field(default_factory=dict)
    """Layer outputs at the places of a `Gradient`, each shape ``(n, ...)``."""

    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    """By place, each shape ``(n, K, ...)``."""

    outputs: Tensor | None = None
    """Raw outputs, shape ``(n, ...)``."""


Fold = Callable[[int, Step], None]
"""Called with ``(start, step)`` for each chunk, in ascending order of rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Forward:
    """Scores, layer outputs or raw outputs of some rows."""

    rows: Rows
    targets: Targets = ()
    taps: tuple[Tap, ...] = ()
    outputs: bool = False
    """Whether raw outputs are wanted; for few rows only."""

    fold: Fold | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Gradient:
    """Derivatives of every target at every place of this pass, row by row."""

    rows: Rows
    targets: Targets
    at: tuple[str, ...] = (INPUT,)
    """`INPUT` or names of declared layers."""

    rule: Rule = Rule.PLAIN
    fold: Fold | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The model, lent alone to one job until a moment of `time.monotonic`."""

    model: nn.Module
    until: float

    def check(self) -> None:
        """Raise `TimeUp` when the lease has ended; call it between model calls."""
        if time.monotonic() > self.until:
            raise TimeUp


@dataclass(frozen=True, slots=True, eq=False)
class Exclusive:
    """Work that needs the model itself; nothing else runs meanwhile.

    The plan is resumed with what `work` returned. The work must leave the
    model as it was, which is checked, and must call `Lease.check` often enough
    to honor its bound.
    """

    work: Callable[[Lease], Any]
    seconds: float
    """Longest time for which the model is lent."""

    rows: int = 0
    """Rows that it runs, for the progress."""


Pass = Forward | Gradient | Exclusive
Plan = Generator[Pass | tuple[Pass, ...], Any, R]
"""A method at work on one image; returns its result."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Rows that a plan will ask for."""

    forward_rows: int = 0
    gradient_rows: int = 0
    exact: bool = True
    """Whether the plan always asks for just these."""

    @property
    def rows(self) -> int:
        """All rows, of whichever kind."""
        return self.forward_rows + self.gradient_rows

    @property
    def effort(self) -> int:
        """Rows in forward passes: one with a gradient takes about twice as long."""
        return self.forward_rows + 2 * self.gradient_rows
