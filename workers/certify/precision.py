r"""How far maps in bfloat16 are from maps in float64, on a model's known cases.

.. math:: r = \min_{i,\,k} \operatorname{corr}(A^{16}_{ik}, A^{64}_{ik})

over the cases `i` and the classes `k` that are explained on each: those that
the case shows, and one that it does not. `corr` is Pearson's correlation of all
raw values on the map's own grid, of all views together. The minimum counts, and
not a mean: a request is for one map, and a mean would hide the one that is wrong.
"""

import math
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from service.domain.precision import PrecisionRecord
from workers.certify.cases import CASES, Case, NotCertifiable
from workers.certify.maps import Drawing, draw
from workers.certify.similarity import ROUNDING
from workers.certify.turns import Turns
from workers.methods.base import Method
from workers.model import Model
from workers.precisions import gate_of
from workers.views import cost_of

EFFORT: Final = 15_000
"""Forward passes for one method, or their like, beyond which fewer cases are taken."""

FEWEST: Final = 8
"""Cases below which nothing is said."""

DOUBLE: Final = 3
"""Passes in float64 and bfloat16, in those of float32."""

DIGITS: Final = 6


def measured(method: Method, model: Model, cases: Sequence[Case], turns: Turns) -> PrecisionRecord:
    """Compare a method's maps in both precisions on a model's cases.

    Raises
    ------
    NotCertifiable
        ``too_costly``; ``no_usable_maps``: in float64 it failed, or gave
        constant or not finite maps, on more than half of the cases.
    Unwanted
        The worker drains, or the model is gone.
    """
    several = model.manifest.image.several
    some = cases[: affordable(method, model.runtime.shape, several=several)]
    exact = turns.owned(lambda: model.runtime.recast(torch.float64))
    narrow = turns.owned(lambda: model.replicas.at("bfloat16"))
    pairs = zip(
        draw(turns, exact, method, some, lambda case: case.explained),
        draw(turns, narrow, method, some, lambda case: case.explained),
        strict=True,
    )
    by_case = [list(_correlations(*each)) for each in pairs]
    found = [each for case in by_case for each in case]
    usable = sum(bool(case) for case in by_case)
    if 2 * usable < len(some) or usable < FEWEST:
        raise NotCertifiable("no_usable_maps")
    worst, gate = min(found), gate_of(method)
    calibration = model.manifest.calibration
    return model.precisions.record(
        method,
        outcome="offered" if worst >= gate else "not_offered",
        reason=None if worst >= gate else "gate_not_passed",
        worst=rounded_down(worst),
        median=rounded_down(median(found)),
        maps=len(found),
        cases=usable,
        synthetic=calibration is not None and calibration.synthetic,
    )


def affordable(method: Method, shape: Sequence[int], *, several: bool = False) -> int:
    """Return how many cases, of one image or of `several` views, may be measured for its cost.

    Raises
    ------
    NotCertifiable
        Fewer than are needed to say anything.
    """
    effort = DOUBLE * max(1, cost_of(method, shape, 1, several=several).effort)
    if effort * FEWEST > EFFORT:
        raise NotCertifiable("too_costly")
    return min(CASES, EFFORT // effort)


def rounded_down(value: float) -> float:
    """Return a correlation that is never told better than it is."""
    return math.floor(value * 10**DIGITS) / 10**DIGITS


def _correlations(exact: dict[int, Drawing], narrow: dict[int, Drawing]) -> Iterator[float]:
    """Yield the correlation of each map that float64 gives; 0 where bfloat16 gives none."""
    for target, drawing in exact.items():
        values = _values(drawing)
        if not _varies(values):
            continue
        other = _values(narrow[target]) if target in narrow else None
        yield 0.0 if other is None or not _varies(other) else correlation(values, other)


def _values(drawing: Drawing) -> NDArray[np.float32]:
    """Return the values of all views, or of the image alone."""
    return np.stack([each.values for each in drawing])


def _varies(values: NDArray[np.float32]) -> bool:
    """Tell whether a map is finite, and not constant but for rounding."""
    return bool(np.isfinite(values).all() and np.ptp(values) > ROUNDING * np.abs(values).max())


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return Pearson's correlation of two maps that are not constant."""
    pair = np.stack([one.ravel(), other.ravel()]).astype(np.float64)
    first, second = pair - pair.mean(axis=1, keepdims=True)
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
