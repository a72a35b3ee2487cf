"""What every measure is: a check of one map, said in one sentence of a fixed table.

A measure is a frozen pydantic model whose fields are its parameters. It is
registered by decorator and judges one map at a time; it may say that it does
not apply. Its sentences stand in its own `words`, so that a reader never sees
a text made up on the way.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, JsonValue

from service.domain.explanation import Check
from service.registry import Registry

Outcome = Literal["pass", "fail", "not_applicable"]


@dataclass(frozen=True, slots=True, eq=False)
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


class Measure(BaseModel, ABC):
    """A check made of each map; class variables are what the catalog publishes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    title: ClassVar[str]
    meaning: ClassVar[str]
    """What a pass means, in one sentence."""

    limits: ClassVar[str]
    """What the measure cannot see, in one sentence."""

    words: ClassVar[Mapping[str, str]]
    """The sentence for each outcome, and for each flag that has one of its own."""

    @abstractmethod
    def judge(self, case: Case) -> Check:
        """Return the outcome on one map."""

    def check(
        self, outcome: Outcome, *flags: str, values: Mapping[str, JsonValue] | None = None
    ) -> Check:
        """Return a check worded by its first flag with a sentence, else by its outcome."""
        key = next((flag for flag in flags if flag in self.words), outcome)
        return Check(
            name=self.name,
            outcome=outcome,
            flags=flags,
            values=dict(values or {}),
            meaning=self.words[key],
        )


MEASURES: Registry[Measure] = Registry("workers.measures", "whylight.measures")
"""Measures by name."""
