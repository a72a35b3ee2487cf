"""Whether a map says anything at all."""

from typing import ClassVar, Final

import numpy as np
from pydantic import Field
from typing_extensions import override

from service.domain.explanation import Check
from service.domain.trust import STATEMENTS, Flag
from workers.measures.base import MEASURES, Case, Measure

DEGENERATE: Final = "degenerate"
NON_FINITE: Final = "non_finite"
EPSILON: Final = float(np.finfo(np.float32).eps)


@MEASURES.register("integrity")
class Integrity(Measure):
    r"""The map is finite, and not constant beyond the rounding of float32.

    A map is *degenerate* when its values span no more than rounding can:

    .. math:: \max A - \min A \le r\,\epsilon_{32}\,\max(|A|_\infty, |s|)

    with the score `s` counted only where values are combined from scores alone
    (occlusion), because the rounding of a difference scales with its terms.

    Of several images that were explained together, a map that is zero within that
    rounding, while another's is not, does say something: that the evidence lies elsewhere.

    Parameters
    ----------
    roundings
        Rounding steps that a constant map may span, `r`.
    """

    title = "Integrity"
    meaning = "The map is finite and is not constant."
    limits = "A map can be intact and still show the wrong place."
    words: ClassVar = {
        "pass": "The map's values are finite and differ from one another beyond rounding.",
        DEGENERATE: "The map is constant: it says nothing about where the score comes from.",
        Flag.EVIDENCE_ELSEWHERE: STATEMENTS[Flag.EVIDENCE_ELSEWHERE],
        NON_FINITE: "The map holds values that are not finite: it must not be read.",
    }

    roundings: float = Field(default=16.0, gt=0, le=1024)

    @override
    def judge(self, case: Case) -> Check:
        """Return the outcome on one map."""
        finite = int(np.isfinite(case.values).sum())
        if finite < case.values.size:
            missing = case.values.size - finite
            return self.check("fail", NON_FINITE, DEGENERATE, values={"non_finite": missing})
        values = {
            "minimum": float(case.values.min()),
            "maximum": float(case.values.max()),
            "distinct_values": int(np.unique(case.values).size),
        }
        spread, largest = values["maximum"] - values["minimum"], float(np.abs(case.values).max())
        score = abs(case.score) if case.of_scores else 0.0
        if spread > self.roundings * EPSILON * max(largest, score):
            return self.check("pass", values=values)
        if largest <= self.roundings * EPSILON * score < case.elsewhere:
            return self.check("pass", Flag.EVIDENCE_ELSEWHERE, values=values)
        return self.check("fail", DEGENERATE, values=values)
