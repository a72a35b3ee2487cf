"""Whether the model registered here says what the AI that issued the result said."""

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from service.domain.value import Value


class Parity(StrEnum):
    """How the two compare."""

    MATCHED = "matched"
    MISMATCHED = "mismatched"
    NOT_GIVEN = "not_given"


WORDS: Final = MappingProxyType(
    {
        Parity.MATCHED: "The model says here what the issuing system reported.",
        Parity.MISMATCHED: "The model says something else here than the issuing system reported.",
        Parity.NOT_GIVEN: "It was not compared with what an issuing system reported.",
    }
)
"""One sentence for each outcome."""


class Pair(Value):
    """One class: what was observed there, and what the model says here."""

    key: str
    outcome: Parity
    scale: str
    """What kind of number the scores are: ``probability``, ``logit`` or ``value``."""

    observed: float | None
    found: float
    tolerance: float
    observed_positive: bool | None
    found_positive: bool | None


class ParityReport(Value):
    """All classes that were observed; mismatched if any of them is."""

    outcome: Parity = Parity.NOT_GIVEN
    pairs: tuple[Pair, ...] = ()
