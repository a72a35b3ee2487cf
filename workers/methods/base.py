"""What every explanation method is: parameters, needs, a cost and a plan.

A method is a frozen pydantic model whose fields are its parameters; unknown
ones are refused. It is registered by decorator and writes no model code: its
plan yields passes and turns what they give into :class:`Maps`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from service.domain.catalog import Sense
from service.registry import Registry
from workers.passes import Ability, Cost, Forward, Pass, Plan, Step, Targets, TimeUp
from workers.rows import Rows
from workers.tabular import Tabular
from workers.tokens import Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Attribution maps of one method, raw and signed, on the grid they were made on."""

    values: Tensor
    """Shape ``(K, C, *grid)``, targets in the order asked; model's floating type."""

    affine: NDArray[np.float64]
    """Homogeneous matrix, shape ``(D + 1, D + 1)``: cell index to model-input index.

    An integer index is the center of its cell, on both sides.
    """

    extras: tuple[Mapping[str, float], ...] = ()
    """The method's own figures for each target; empty if it has none."""

    shares: Tensor | None = None
    """What each value beside the image adds, shape ``(K, variables)``; `None` if it has no say."""

    partial: bool = False
    """Whether the job's time was up before all rows were done."""

    of_views: "tuple[Maps, ...]" = ()
    """Of several views each by itself, where they were explained one beside the other."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a method may know of the model before it plans."""

    layers: tuple[str, ...] = ()
    """Usable target layers, the default first."""

    linear_heads: tuple[str, ...] = ()
    """Those of them that are followed by a mean over the grid and a linear head."""

    baseline: float = 0.0
    """The model's reference value of a pixel, in model-input units."""

    sizes: tuple[int, ...] = ()
    """Of what it is run on along each spatial axis, in pixels; empty if not known."""

    attentions: tuple[str, ...] = ()
    """Places of a transformer's attention weights, from the first block on."""

    tokens: Tokens | None = None
    """Where a transformer's tokens lie."""


class Method(BaseModel, ABC):
    """A way to attribute a score to the input.

    Subclasses state, as class variables, what the catalog publishes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised when equal parameters give other maps than before: certificates depend on it."""

    title: ClassVar[str]
    needs: ClassVar[frozenset[Ability]]
    signed: ClassVar[bool]
    """Whether values below zero mean something."""

    sense: ClassVar[Sense] = "evidence"
    """What values mean; documentation, catalog and legends take their words from it."""

    weak: ClassVar[bool] = False
    """Whether it is weak evidence on any model, known to depend little on what was learned: its
    maps are graded weak at best, even where its certificate passed."""

    marks_alike: ClassVar[bool] = False
    """Whether it marks all that looks alike, whichever of several objects is asked about: because
    it weighs the channels of a layer for the whole image, or asks for no target."""

    linear: ClassVar[bool] = False
    """Whether it is right of scores alone that are weighted sums of what the model puts out: it
    reads them off the layer before, or knows no rule for what is made of outputs."""

    partial_map: ClassVar[bool] = False
    """Whether it has something to show before its last row: when time is up, it then returns a map
    of what was done, marked as partial, if that is enough."""

    paper: ClassVar[str]
    cost: ClassVar[str]
    """Rows in words, such as ``steps gradient rows``."""

    weaknesses: ClassVar[str]

    @classmethod
    def differentiates(cls) -> bool:
        """Tell whether it takes derivatives, and does not change the image alone."""
        return not cls.needs <= WITHOUT_DERIVATIVES

    def settled(self, model: ModelFacts) -> Self:  # noqa: ARG002 - for methods with such defaults
        """Return this method with the model's own defaults in place of `None`.

        Raises
        ------
        InvalidParameter
            If a parameter names what the model does not have.
        """
        return self

    @abstractmethod
    def estimate(self, shape: Sequence[int], targets: int) -> Cost:
        """Return the rows needed for an image of shape ``(C, *spatial)``."""

    @abstractmethod
    def plan(self, image: Tensor, targets: Targets) -> Plan[Maps]:
        """Attribute `image`, shape ``(C, *spatial)``, on the model's device."""

    def joint(
        self,
        image: Tensor,
        targets: Targets,
        tabular: Tabular | None,  # noqa: ARG002 - for methods that share the score out among both
    ) -> Plan[Maps]:
        """Attribute `image` and the values beside it.

        A method that explains an image alone is asked about it beside the values as they are.
        """
        return self.plan(image, targets)


WITHOUT_DERIVATIVES: Final = frozenset({Ability.FORWARD, Ability.ACTIVATIONS, Ability.ABLATION})

METHODS: Registry[Method] = Registry("workers.methods", "whylight.methods")


def cells(image: Sequence[int], grid: Sequence[int]) -> NDArray[np.float64]:
    """Return the affine of `grid` equal cells that together cover `image`.

    Parameters
    ----------
    image, grid
        Spatial shapes of the model input and of the map.
    """
    scale = [size / count for size, count in zip(image, grid, strict=True)]
    return spread(scale)


def spread(cell: Sequence[float]) -> NDArray[np.float64]:
    """Return the affine of cells of edge lengths `cell`, the first at the origin's corner."""
    affine = np.diag([*cell, 1.0])
    affine[:-1, -1] = [(edge - 1) / 2 for edge in cell]
    return affine


def cut_short(asked: Pass | tuple[Pass, ...]) -> Plan[bool]:
    """Ask for passes with folds; return whether time was up before their last row."""
    try:
        yield asked
    except TimeUp:
        return True
    return False


def scored(rows: Rows, targets: Targets, image: Tensor) -> Plan[tuple[Tensor, bool]]:
    """Ask for the scores of rows, which come on the device of `image`.

    Returns
    -------
    tuple[Tensor, bool]
        Float64 scores of the rows that are done, shape ``(done, K)``, and whether time was
        up before all were.
    """
    scores = zeros((rows.count, len(targets)), image)
    done = 0

    def fold(start: int, step: Step) -> None:
        nonlocal done
        assert step.scores is not None  # noqa: S101 - targets were asked for
        done = start + step.count
        scores[start:done] = step.scores

    late = yield from cut_short(Forward(rows, targets, fold=fold))
    return scores[:done], late


def require_half(done: int, count: int, fewest: int) -> None:
    """Raise `TimeUp` unless half of all is done, or `fewest` where these are less.

    What is a mean over ever more rows needs so many of them to be like its limit, however
    many were asked for.
    """
    if done < min(count / 2, fewest):
        raise TimeUp


def spread_order(count: int) -> list[int]:
    """Return the numbers from 0 to `count` - 1 so that the first few are spread among all.

    They are in the order of van der Corput's sequence: 1/2, 1/4, 3/4, 1/8, ...
    """
    bits = (count - 1).bit_length()
    mirrored = (int(f"{k:0{bits}b}"[::-1], 2) for k in range(1, 1 << bits))
    return list(dict.fromkeys([*(each * count >> bits for each in mirrored), 0]))[:count]


def add_rows(total: Tensor, rows: Tensor) -> None:
    """Add `rows` to `total`, shape of one row, in float64 and in order.

    Row by row, so that the sum's bits do not depend on how rows were chunked.
    """
    for row in rows:
        total.add_(row)


class PairedSum:
    """A sum of rows that come in pairs: one without its other is not in it.

    Its bits do not depend on how rows were chunked, as `add_rows` has it.

    Parameters
    ----------
    shape
        Of one row.
    like
        The sum is on its device.
    single
        Rows before the pairs that count alone.
    """

    def __init__(self, shape: Sequence[int], like: Tensor, single: int = 0) -> None:
        self.total = zeros(shape, like)
        """Float64."""
        self.count = 0
        """Rows that are in it."""
        self._single = single
        self._waiting: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Add the next rows, shape ``(n, *shape)``."""
        for row in rows:
            if self._waiting is None and self.count >= self._single:
                self._waiting = row.clone()
                continue
            if self._waiting is not None:
                self.total.add_(self._waiting)
                self._waiting = None
                self.count += 1
            self.total.add_(row)
            self.count += 1


def zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return a float64 accumulator on the device of `like`."""
    return torch.zeros(*shape, dtype=torch.float64, device=like.device)
