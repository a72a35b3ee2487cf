"""What ranked maps are compared with, and the same comparisons of the control."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from service.domain.certificate import Compared, Similarity
from service.domain.grid import Grid
from workers.certify.cases import Case
from workers.certify.edges import edges
from workers.certify.maps import Drawing, Drawn, MapsByClass, ranks_of
from workers.certify.similarity import Array, summarized
from workers.certify.weights import SEEDS

Ranks = Sequence[Array | None]
"""One map's ranks for each case; `None` where there is no map."""


def of_target(maps: MapsByClass, cases: Sequence[Case]) -> Ranks:
    """Return the ranks of the maps of each case's target."""
    return [_ranks(drawn, case.target) for drawn, case in zip(maps, cases, strict=True)]


def of_other(maps: MapsByClass, cases: Sequence[Case]) -> Ranks:
    """Return the ranks of the maps of each case's other class."""
    return [_ranks(drawn, case.other) for drawn, case in zip(maps, cases, strict=True)]


def correlations(maps: Ranks, others: Ranks) -> Array:
    """Return Spearman's correlation of maps in pairs; NaN where either is missing."""
    return np.array(
        [
            np.nan if one is None or other is None else float(one @ other)
            for one, other in zip(maps, others, strict=True)
        ]
    )


def unchanged(plain: Ranks, others: Ranks, cases: Sequence[Case]) -> dict[Compared, Similarity]:
    """Compare maps of one model: with other classes, and with other images of the class."""
    patients = [None if partner is None else plain[partner] for partner in _partners(cases)]
    return summaries(
        {
            "other_class": correlations(plain, others)[:, None],
            "other_patient": correlations(plain, patients)[:, None],
        }
    )


def control(cases: Sequence[Case], compared: Iterable[Compared]) -> dict[Compared, Similarity]:
    """Compare what the edge detector gives, which neither weights nor classes can change."""
    ranks = [_edges(case) for case in cases]
    others = [None if case.other is None else own for own, case in zip(ranks, cases, strict=True)]
    same = np.repeat(correlations(ranks, ranks)[:, None], len(SEEDS), axis=1)
    found = unchanged(ranks, others, cases) | summaries({"all_random": same, "head_random": same})
    return {name: found[name] for name in compared if name in found}


def summaries(pairs: Mapping[Compared, Array]) -> dict[Compared, Similarity]:
    """Return the similarities of those comparisons that have any pair."""
    found = {name: summarized(each) for name, each in pairs.items()}
    return {name: each for name, each in found.items() if each is not None}


def _ranks(drawn: Mapping[int, Drawing], target: int | None) -> Array | None:
    """Return the ranks of one class's map, if there is one."""
    return ranks_of(drawn[target]) if target is not None and target in drawn else None


def _edges(case: Case) -> Array | None:
    """Return the ranks of a case's edges."""
    grid = Grid.identity(case.extent)
    found = (edges(each).numpy().astype(np.float32) for each in case.images)
    return ranks_of(tuple(Drawn(values, grid, case.extent) for values in found))


def _partners(cases: Sequence[Case]) -> list[int | None]:
    """Return for each case the next with the same target, in a ring; `None` if it is alone."""
    rings: dict[int, list[int]] = {}
    for number, case in enumerate(cases):
        rings.setdefault(case.target, []).append(number)
    after = {
        number: ring[(place + 1) % len(ring)]
        for ring in rings.values()
        for place, number in enumerate(ring)
    }
    return [None if after[number] == number else after[number] for number in range(len(cases))]
