"""Whether a map's places move the score explained, and not just any score."""

from typing import ClassVar

import numpy as np
from typing_extensions import override

from service.domain.explanation import Check
from service.domain.trust import Flag
from workers.measures.bank import BANK, Bank
from workers.measures.base import MEASURES, Case, Measure
from workers.measures.bearing import agreements


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
        bank: Bank | None = case.answers.get(BANK.name)
        if bank is None:
            return self.check("not_applicable")
        every = range(bank.drops.shape[1]) if case.rivals is None else case.rivals
        rivals = [each for each in every if each != case.target]
        if not rivals:
            return self.check("not_applicable")
        found = agreements(case.values, case.grid, case.extent, bank.drops, bank.scores)
        own, others = found[case.target], found[rivals]
        if not np.isfinite(own) or not np.isfinite(others).any():
            return self.check("not_applicable")
        values = {"r": float(own), "best_other_r": float(np.nanmax(others))}
        if own > np.nanmax(others):
            return self.check("pass", values=values)
        return self.check("fail", Flag.NOT_TARGET_SPECIFIC, values=values)
