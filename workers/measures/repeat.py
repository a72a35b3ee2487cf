"""Whether a second run gives the same map."""

from typing import ClassVar

import numpy as np
from pydantic import Field
from typing_extensions import override

from service.domain.explanation import Check
from service.domain.trust import Flag
from workers.measures.base import MEASURES, Case, Measure


@MEASURES.register("repeat")
class Repeat(Measure):
    r"""The largest difference between two runs, as a share of the map's range.

    .. math:: \max |A_1 - A_2| \,/\, (\max A_1 - \min A_1)

    Parameters
    ----------
    tolerance
        Largest share that passes: rows served in other batches differ by no
        more in float32.
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

    @override
    def judge(self, case: Case) -> Check:
        """Return the difference between both runs."""
        if case.again is None or case.again.shape != case.values.shape:
            return self.check("not_applicable")
        first, second = case.values.astype(np.float64), case.again.astype(np.float64)
        span = float(np.ptp(first))
        difference = float(np.abs(first - second).max())
        share = difference / span if span > 0 else difference
        values = {"relative_difference": share, "tolerance": self.tolerance}
        if share <= self.tolerance:  # a NaN fails
            return self.check("pass", values=values)
        return self.check("fail", Flag.NOT_REPEATABLE, values={"tolerance": self.tolerance})
