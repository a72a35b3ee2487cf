"""Whether the model registered here says what the AI that issued the result said."""

from collections.abc import Iterable
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Self

from service.domain.value import Value


class Parity(StrEnum):
    """How the two compare."""

    MATCHED = "matched"
    MISMATCHED = "mismatched"
    NOT_GIVEN = "not_given"


WORDS: Final = MappingProxyType(
    {
        Parity.MATCHED: (
            "Of this class or value the model says here what the issuing system reported."
        ),
        Parity.MISMATCHED: (
            "Of this class or value the model says something else here than the issuing system"
            " reported."
        ),
        Parity.NOT_GIVEN: (
            "Of this class or value nothing was compared with what an issuing system reported."
        ),
    }
)
"""One sentence for each outcome of what one map explains."""

WORST_FIRST: Final = (Parity.MISMATCHED, Parity.MATCHED, Parity.NOT_GIVEN)
"""One mismatch outweighs every match, and one match whatever could not be compared."""

DECISIONS: Final = MappingProxyType(
    {True: "reported", False: "not reported", None: "no threshold to tell"}
)
"""A decision in words."""


def worst(outcomes: Iterable[Parity]) -> Parity:
    """Return what holds for all together."""
    return min(outcomes, key=WORST_FIRST.index, default=Parity.NOT_GIVEN)


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

    @property
    def said(self) -> str:
        """What the issuing system gave and what the model gives here: scores, decisions or both."""
        issued, here, within = [], [], ""
        if self.observed is not None:
            issued.append(f"{self.scale} {self.observed:.6g}")
            here.append(f"{self.found:.6g}")
            within = f" (tolerance {self.tolerance:.3g})"
        if self.observed_positive is not None:
            issued.append(DECISIONS[self.observed_positive])
            here.append(DECISIONS[self.found_positive])
        return f"Issuing system: {', '.join(issued)}; here: {', '.join(here)}{within}."


class ParityReport(Value):
    """All classes that were observed, or those that one map is about; as bad as the worst."""

    outcome: Parity = Parity.NOT_GIVEN
    pairs: tuple[Pair, ...] = ()

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Self:
        """Return the report of some classes."""
        kept = tuple(pairs)
        return cls(outcome=worst(pair.outcome for pair in kept), pairs=kept)

    def about(self, key: str) -> Self:
        """Return what there is to say of one class or value: of a map, its target's `about`."""
        return self.of(pair for pair in self.pairs if pair.key == key)
