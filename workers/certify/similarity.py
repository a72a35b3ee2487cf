r"""How alike maps are: Spearman's correlation on one grid, its mean and interval.

.. math:: \rho(a, b) = \frac{\langle \bar r(a), \bar r(b) \rangle}
          {\lVert \bar r(a) \rVert \, \lVert \bar r(b) \rVert}

with :math:`\bar r` the average ranks less their mean. Signed maps are ranked
with their sign: magnitudes alone make any two maps of an image alike.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.domain.certificate import Similarity

Array = NDArray[np.float64]

ROUNDING: Final = 1e-6
"""Difference, relative to the largest magnitude, under which two values of a map are equal."""

RESAMPLES: Final = 2000
SEED: Final = 20_231
DIGITS: Final = 4


def ranked(values: Array) -> Array:
    """Return centered average ranks of unit length: products of two are correlations.

    Zeros for a map that is constant but for rounding, which is like no other.
    """
    flat = values.ravel()
    largest = np.abs(flat).max()
    if not largest > 0:
        return np.zeros_like(flat)
    levels = np.round(flat / (largest * ROUNDING))
    _, place, counts = np.unique(levels, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    centered: Array = ranks - ranks.mean()
    length = np.linalg.norm(centered)
    return centered / length if length > 0 else np.zeros_like(flat)


def summarized(pairs: Array) -> Similarity | None:
    """Return the mean correlation with its 95 % interval; `None` without any pair.

    Cases and seeds are drawn anew, each with all that belongs to it, because
    pairs that share a case or a seed are not independent. No term is taken off
    for what they share twice: the interval is rather too wide.

    Parameters
    ----------
    pairs
        Correlations, shape ``(cases, seeds)``; NaN where there is none.

    References
    ----------
    Owen (2007). The pigeonhole bootstrap. Annals of Applied Statistics 1(2).
    """
    known = np.isfinite(pairs)
    if not known.any():
        return None
    random = np.random.default_rng(SEED)
    cases, seeds = pairs.shape
    rows = random.integers(cases, size=(RESAMPLES, cases, 1))
    columns = random.integers(seeds, size=(RESAMPLES, 1, seeds))
    counts = known[rows, columns].sum((1, 2))
    sums = np.where(known, pairs, 0.0)[rows, columns].sum((1, 2))
    low, high = np.percentile(sums[counts > 0] / counts[counts > 0], [2.5, 97.5])
    return Similarity(
        value=_rounded(pairs[known].mean()),
        low=_rounded(low),
        high=_rounded(high),
        pairs=int(known.sum()),
    )


def _rounded(value: float) -> float:
    """Return a published number: more digits differ from processor to processor."""
    return round(float(value), DIGITS)
