"""Whether a map's values add up to the change in score that they share out."""

from typing import ClassVar, Final

import numpy as np
from pydantic import Field
from typing_extensions import override

from service.domain.explanation import Check
from service.domain.trust import Flag
from workers.measures.base import MEASURES, Case, Measure

SCORE_CHANGE: Final = "score_change"
"""Key of a method's own figure: score on the image minus score on the baseline."""

TOLERANCE: Final = "tolerance"
"""Key of a method's own figure: the relative residual that the request allows, if it said."""

ROUNDINGS: Final = 16.0 * float(np.finfo(np.float32).eps)
"""Share of the score under which a change is no more than rounding."""


@MEASURES.register("completeness")
class Completeness(Measure):
    r"""The map's sum equals the change in score from the baseline to the image.

    .. math:: \rho = \frac{|\sum A - (f(x) - f(b))|}{|f(x) - f(b)|}

    It applies to methods that share out this change and state it among their
    own figures, such as integrated gradients. The sum is taken in float64; of a
    map that was kept to regions, what was left out counts along, and so does what
    values beside the image add. Methods that draw samples are held to the same: what
    their sum misses is their error of sampling. A map of a method that was asked to
    meet a tolerance must meet that as well. Of a method that was stopped early it is no
    merit: some share out the whole change whatever they have tried.

    Parameters
    ----------
    tolerance
        Largest relative residual that passes; 0.05 is what the paper asks of a
        sufficient number of steps.

    References
    ----------
    Sundararajan, Taly, Yan (2017). Axiomatic attribution for deep networks.
    ICML. arXiv:1703.01365, section 5.
    """

    version = 2
    title = "Completeness"
    meaning = "The map's values add up to the change in score that they share out."
    limits = "It tests the arithmetic of the map, not whether its places are right."
    words: ClassVar = {
        "pass": "The map's values add up to the change in score from the baseline to the image.",
        "fail": (
            "The map's values do not add up to the change in score from the baseline"
            " to the image: ask for more steps or samples."
        ),
        "tolerance_missed": (
            "The map's sum is farther from the change in score than the tolerance that was"
            " asked for: allow more points."
        ),
        "not_applicable": "The method does not share out a change in score.",
        "partial": (
            "The method was stopped early: that its values add up does not tell how near they are"
            " to those of the whole map."
        ),
        "no_change": "The score on the image equals the score on the baseline.",
    }

    tolerance: float = Field(default=0.05, gt=0, lt=1)

    @override
    def judge(self, case: Case) -> Check:
        """Return the outcome on one map."""
        change = case.extras.get(SCORE_CHANGE)
        if change is None:
            return self.check("not_applicable")
        if not abs(change) > ROUNDINGS * abs(case.score):
            return self.check("not_applicable", "no_change", values={"score_change": change})
        total = float(case.values.sum(dtype=np.float64)) + case.left_out + case.beside
        if not np.isfinite(total):
            return self.check("fail", Flag.INCOMPLETE, values={"score_change": change})
        residual = abs(total - change) / abs(change)
        asked = case.extras.get(TOLERANCE)
        flags = [Flag.INCOMPLETE] if residual > self.tolerance else []
        flags += [Flag.TOLERANCE_MISSED] if asked is not None and residual > asked else []
        if case.partial and not flags:
            return self.check(
                "not_applicable", Flag.PARTIAL, values={"sum": total, "score_change": change}
            )
        return self.check(
            "fail" if flags else "pass",
            *flags,
            values={
                "sum": total,
                "score_change": change,
                "relative_residual": residual,
                "tolerance": self.tolerance if asked is None else min(asked, self.tolerance),
            },
        )
