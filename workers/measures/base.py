"""What every measure is: a check of one map, said in one sentence of a fixed table.

A measure is a frozen pydantic model whose fields are its parameters. It is
registered by decorator and judges one map at a time; it may say that it does
not apply. Its sentences stand in its own `words`, so that a reader never sees
a text made up on the way. What it must ask the model first is an `Inquiry`:
one plan of passes for an image, whatever the number of its maps.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, JsonValue
from torch import Tensor

from service.domain.explanation import Check
from service.domain.grid import Grid
from service.registry import Registry
from workers.margins import Margins
from workers.measures.bearing import brought
from workers.measures.frame import SIDE
from workers.passes import Plan, Targets

Outcome = Literal["pass", "weak", "fail", "not_applicable"]
Level = Literal["standard", "full"]
Box = tuple[float, ...]
"""Starts along each axis of the source in its pixels, then ends, past the end."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """The image whose maps are judged, as the model takes it."""

    image: Tensor
    """Shape ``(C, *spatial)``, on the runtime's device."""

    inside: NDArray[np.float64] | None
    """How far each pixel lies in the expected region, shape ``spatial``, in [0, 1]; `None`
    where the model declares none."""

    scores: NDArray[np.float64] | None = None
    """The scalars' values on it, shape ``(scalars,)``; `None` where they are not known yet."""

    scalars: Targets = ()
    """What measures ask the model for; empty for each of a classifier's outputs."""

    pixels: float = math.inf
    """Fewest source pixels along an axis of the image; an enlarged one has more of its own."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What measures ask the model about an image, once for all of its maps."""

    name: str
    plan: Callable[[Scene], Plan[Any]]
    rows: Callable[[Scene], int]
    """Rows that the plan asks for; 0 when there is nothing to ask of this image."""


@dataclass(frozen=True, eq=False)
class Case:
    """One map and what is known of it."""

    values: NDArray[np.float32]
    """Raw signed values, shape ``(C, *grid)``."""

    score: float
    """The explained scalar on the unchanged image (a logit)."""

    of_scores: bool
    """Whether the values are combined from scores alone: their rounding scales with the score."""

    extras: Mapping[str, float]
    """The method's own figures, such as a completeness residual."""

    beside: float = 0.0
    """Sum of what the values beside the image add, and other views that were explained with it."""

    partial: bool = False
    """Whether the method was stopped early: what holds of whole maps by themselves, or compares
    with them, speaks against it at most."""

    elsewhere: float = 0.0
    """Of several images that were explained together: the relevance that is drawn in full color
    in all of them."""

    grid: Grid = field(default_factory=lambda: Grid.identity((1, 1)))
    """Cells of the map in the model's input."""

    extent: tuple[int, ...] = ()
    """Spatial shape of the model's input."""

    pixels: float = math.inf
    """Fewest source pixels along an axis of the model's input."""

    source: Grid = field(default_factory=lambda: Grid.identity((1, 1)))
    """Cells of the map in the source image."""

    target: int = 0
    """Which of the scene's scalars is explained."""

    rivals: tuple[int, ...] | None = None
    """Scalars that it can be told from: the other classes; `None` for all others."""

    gap: float | None = None
    """Mean score of validation cases with the finding, less that of those without."""

    answers: Mapping[str, Any] = field(default_factory=dict)
    """What the model answered, by inquiry; one that failed is missing."""

    template: NDArray[np.float64] | None = None
    """The method's mean map of this class on this model, of unit length."""

    again: NDArray[np.float32] | None = None
    """The map that a second run gave."""

    margins: Margins = ()
    """Uniform margins of the model's input."""

    known_margins: Margins | None = None
    """The widest of the model's validation cases; `None` where it has none."""

    boxes: tuple[Box, ...] = ()
    """Where a reader sees the finding."""

    image: tuple[int, ...] = ()
    """Pixels of the source image along each axis, in which `boxes` lie."""

    left_out: float = 0.0
    """Sum of what the method made outside of the regions that the map was kept to."""

    @cached_property
    def square(self) -> NDArray[np.float64]:
        """The map's mass on the grid on which maps are compared with the probe bank."""
        return brought(self.values, self.grid, self.extent, SIDE)


class Measure(BaseModel, ABC):
    """A check made of each map; class variables are what the catalog publishes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    version: ClassVar[int] = 1
    title: ClassVar[str]
    passes: ClassVar[str] = "none"
    """Cost in rows, in words."""

    when: ClassVar[Level] = "standard"
    """From which level of checks on it is made."""

    inquiry: ClassVar[Inquiry | None] = None
    again: ClassVar[bool] = False
    """Whether the method must be run a second time."""

    meaning: ClassVar[str]
    """What a pass means, in one sentence."""

    limits: ClassVar[str]
    """What the measure cannot see, in one sentence."""

    words: ClassVar[Mapping[str, str]]
    """The sentence for each outcome, and for each flag that has one of its own."""

    @abstractmethod
    def judge(self, case: Case) -> Check:
        """Return the outcome on one map."""

    def judge_all(self, cases: Sequence[Case]) -> list[Check]:
        """Return the outcomes on the maps of one image, at least one; the answers are the same.

        Overridden where it is quicker to compare all of them at once.
        """
        return [self.judge(each) for each in cases]

    def check(
        self,
        outcome: Outcome,
        *flags: str,
        values: Mapping[str, JsonValue] | None = None,
        passes: int = 0,
    ) -> Check:
        """Return a check worded by its first flag with a sentence, else by its outcome."""
        key = next((flag for flag in flags if flag in self.words), outcome)
        return Check(
            name=self.name,
            version=self.version,
            outcome=outcome,
            flags=flags,
            values=dict(values or {}),
            passes=passes,
            meaning=self.words[key],
            limits=self.limits,
        )


MEASURES: Registry[Measure] = Registry("workers.measures", "whylight.measures")
"""Measures by name."""
