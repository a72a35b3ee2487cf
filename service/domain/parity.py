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
    """One class or value: what was observed there, and what the model says here."""

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
    """All classes that were observed; as bad as the worst."""

    outcome: Parity = Parity.NOT_GIVEN
    pairs: tuple[Pair, ...] = ()

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Self:
        """Return the report of some classes."""
        kept = tuple(pairs)
        return cls(outcome=worst(pair.outcome for pair in kept), pairs=kept)

    def about(self, key: str) -> "MapParity":
        """Return what there is to say of a map of one class or value: its target's `about`."""
        own = tuple(pair for pair in self.pairs if pair.key == key)
        differing = (pair for pair in self.pairs if pair.outcome is Parity.MISMATCHED)
        return MapParity(
            outcome=worst(pair.outcome for pair in own),
            pairs=own,
            elsewhere=tuple(pair.key for pair in differing if pair.key != key),
        )


class MapParity(ParityReport):
    """What there is to say of one map: of what it is about, and where else the two differ."""

    elsewhere: tuple[str, ...] = ()
    """Other classes or values of which the model says something else than was reported."""

    @property
    def said_elsewhere(self) -> tuple[str, ...]:
        """Where else the two differ, in words; nothing if nowhere."""
        keys = ", ".join(self.elsewhere)
        return (f"Elsewhere the two differ on {keys}.",) if keys else ()
