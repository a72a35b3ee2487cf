"""Whether a second run gives the same map."""

from typing import ClassVar, Final

import numpy as np
from pydantic import Field
from typing_extensions import override

from service.domain.explanation import Check
from service.domain.trust import Flag
from workers.measures.base import MEASURES, Case, Measure

EPSILON: Final = float(np.finfo(np.float32).eps)


@MEASURES.register("repeat")
class Repeat(Measure):
    r"""The largest difference between two runs, as a share of the map's range.

    .. math:: \max |A_1 - A_2| \,/\, (\max A_1 - \min A_1)

    Where values are differences of scores, their rounding scales with the score
    `s`: the range is then taken as at least :math:`r\,\epsilon_{32}|s|` divided by
    the tolerance.

    Parameters
    ----------
    tolerance
        Largest share that passes: rows served in other batches differ by no
        more in float32.
    roundings
        Rounding steps of the score that differences of scores may bear, `r`.
    """

    title = "Repeat"
    passes = "all rows of the method again"
    when = "full"
    again = True
    meaning = "Running the method again on the same image gives the same map."
    limits = "A map that is wrong in the same way each time repeats perfectly."
    words: ClassVar = {
        "pass": "Running the method again gave the same map, up to rounding.",
        "fail": "Running the method again on the same image gave another map.",
        "not_applicable": "The method was not run again.",
    }

    tolerance: float = Field(default=1e-5, gt=0, lt=1)
    roundings: float = Field(default=16.0, gt=0, le=1024)

    @override
    def judge(self, case: Case) -> Check:
        """Return the difference between both runs."""
        if case.again is None or case.again.shape != case.values.shape:
            return self.check("not_applicable")
        first, second = case.values.astype(np.float64), case.again.astype(np.float64)
        span = max(float(np.ptp(first)), self._least(case))
        difference = float(np.abs(first - second).max())
        share = difference / span if span > 0 else difference
        values = {"relative_difference": share, "tolerance": self.tolerance}
        if share <= self.tolerance:  # a NaN fails
            return self.check("pass", values=values)
        finite = values if np.isfinite(share) else {"tolerance": self.tolerance}
        return self.check("fail", Flag.NOT_REPEATABLE, values=finite)

    def _least(self, case: Case) -> float:
        """Return the range that the rounding of the score alone accounts for."""
        if not case.of_scores:
            return 0.0
        return self.roundings * EPSILON * abs(case.score) / self.tolerance
