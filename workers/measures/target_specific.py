"""Whether a map's places move the score explained, and not just any score."""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from service.domain.explanation import Check
from service.domain.trust import Flag
from workers.measures.bank import BANK, Bank
from workers.measures.base import MEASURES, Case, Measure
from workers.measures.bearing import agreements, too_small


@MEASURES.register("target_specific")
class TargetSpecific(Measure):
    """The map agrees with the probe bank better for its own class than for any other.

    The statistic is the probe bank's correlation for the class explained, less
    the largest of the other classes. It takes no pass of its own.
    """

    title = "Target specificity"
    inquiry = BANK
    meaning = "The places that the map marks matter to its own class more than to any other."
    limits = "Findings that lie in one place, or of which one hides the other, look alike to it."
    words: ClassVar = {
        "pass": "The places marked matter more to the class explained than to any other.",
        "fail": "Hiding the places marked changed the score of another class at least as clearly.",
        "not_applicable": "There is no other class to compare with, or nothing was measured.",
    }

    @override
    def judge(self, case: Case) -> Check:
        """Return the margin over the best other class."""
        (check,) = self.judge_all([case])
        return check

    @override
    def judge_all(self, cases: Sequence[Case]) -> list[Check]:
        """Return the margin over the best other class, for each map."""
        bank: Bank | None = cases[0].answers.get(BANK.name)
        if bank is None or too_small(cases[0].extent):
            return [self.check("not_applicable") for _ in cases]
        found = agreements([case.square for case in cases], bank.drops, bank.scores)
        own = [float(r[case.target]) for r, case in zip(found, cases, strict=True)]
        best = np.fmax.reduce(found, axis=1, where=_rivals(cases, found.shape[1]), initial=-np.inf)
        return [self._told(*each) for each in zip(own, best.tolist(), strict=True)]

    def _told(self, own: float, best: float) -> Check:
        """Return the outcome on a map that agrees by `own` with its class, and `best` others."""
        if not (math.isfinite(own) and math.isfinite(best)):
            return self.check("not_applicable")
        values = {"r": own, "best_other_r": best}
        if own > best:
            return self.check("pass", values=values)
        return self.check("fail", Flag.NOT_TARGET_SPECIFIC, values=values)


def _rivals(cases: Sequence[Case], classes: int) -> NDArray[np.bool_]:
    """Return which of the bank's scalars each map is compared with, shape ``(maps, classes)``."""
    rivals = np.zeros((len(cases), classes), dtype=np.bool_)
    for row, case in zip(rivals, cases, strict=True):
        row[slice(None) if case.rivals is None else list(case.rivals)] = True
        row[case.target] = False
    return rivals
