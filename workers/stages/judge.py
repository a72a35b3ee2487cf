"""Judge: every measure asks every map, before anything is drawn."""

from typing import Final

import numpy as np

from workers.access import Access
from workers.measures.base import MEASURES, Case
from workers.measures.integrity import DEGENERATE
from workers.methods.base import METHODS
from workers.parcels import Attributed, Attribution, Judged, Verdict
from workers.passes import Ability

SCORES_ALONE: Final = frozenset({Ability.FORWARD})

UNJUDGED: Final = Verdict(checks=(), degenerate=False)


def judge(attributed: Attributed, access: Access) -> Judged:  # noqa: ARG001
    """Check every map, unless the request wants none checked.

    Whether a map is degenerate is judged always, because such a map must never
    be drawn in color.
    """
    shown = attributed.prepared.decoded.fetched.request.checks != "none"
    verdicts = (_verdict(each, shown=shown) for each in attributed.attributions)
    return Judged(attributed, tuple(verdicts))


def _verdict(attribution: Attribution, *, shown: bool) -> Verdict:
    """Ask every measure about one map; a method that failed has none."""
    if attribution.values is None or attribution.target is None:
        return UNJUDGED
    case = Case(
        values=np.asarray(attribution.values, np.float32),
        score=attribution.target.score,
        of_scores=METHODS[attribution.method].needs <= SCORES_ALONE,
        extras=attribution.extras,
    )
    checks = tuple(measure().judge(case) for _, measure in MEASURES.items())
    degenerate = any(DEGENERATE in check.flags for check in checks)
    return Verdict(checks if shown else (), degenerate=degenerate)
