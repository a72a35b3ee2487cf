"""One method on one model: its certificate and its calibration, from the same cases.

Every number comes of copies of the model that run one row at a time, so that
equal inputs give equal numbers whatever else the device does meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from service.domain.certificate import Certificate, Compared, MethodRecord, Similarity
from workers.certify.calibration import calibrated
from workers.certify.cases import CASES, Case, NotCertifiable
from workers.certify.comparisons import (
    Ranks,
    control,
    correlations,
    of_other,
    of_target,
    summaries,
    unchanged,
)
from workers.certify.ground import Ground
from workers.certify.maps import Drawn, draw
from workers.certify.turns import Turns
from workers.certify.verdict import outcome_of
from workers.certify.weights import SEEDS
from workers.methods.base import Method
from workers.records import PROTOCOL, Subject

EFFORT: Final = 20_000
"""Forward passes for one method, or their like; beyond them cases are left out."""

FEWEST: Final = 6
"""Cases below which nothing is said."""

HIGHEST_EFFORT: Final = 100_000
"""Forward passes beyond which not even the fewest cases are measured."""


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """One method, its parameters settled, on the ground of one model."""

    method: Method
    ground: Ground
    turns: Turns

    def record(self, subject: Subject) -> MethodRecord:
        """Certify and calibrate the method.

        Raises
        ------
        NotCertifiable
            ``too_costly``; ``no_usable_maps``: it failed, or gave constant or
            not finite maps, on more than half of the cases; ``control_passed``:
            on these cases even an edge detector seems to follow the model.
        Unwanted
            The worker drains, or the model is gone.
        """
        ground, method = self.ground, self.method
        cases = ground.cases[: affordable(method, ground.cases[0].image.shape)]
        maps = self._draw(cases)
        return MethodRecord(
            id=subject.identify(method),
            method=method.name,
            parameters=method.model_dump(mode="json"),
            weights=subject.weights,
            runtime=ground.manifest.runtime,
            certificate=self._certificate(cases, maps),
            calibration=calibrated(ground, maps, signed=method.signed),
        )

    def _draw(self, cases: Sequence[Case]) -> list[dict[int, Drawn]]:
        """Return every map that is wanted of the unchanged model."""
        return draw(self.turns, self.ground.plain, self.method, cases, lambda case: case.explained)

    def _certificate(self, cases: Sequence[Case], maps: Sequence[dict[int, Drawn]]) -> Certificate:
        plain = _usable(of_target(maps, cases))
        similarities = {
            **self._shuffled("all_random", None, plain, cases),
            **(self._shuffled("head_random", self.ground.head, plain, cases)),
            **unchanged(plain, of_other(maps, cases), cases),
        }
        edges = control(cases, similarities)
        if outcome_of(edges) != "failed":
            raise NotCertifiable("control_passed")
        calibration = self.ground.manifest.calibration
        return Certificate(
            outcome=outcome_of(similarities),
            similarities=similarities,
            control=edges,
            cases=len(cases),
            seeds=len(SEEDS),
            synthetic=calibration is not None and calibration.synthetic,
            protocol=PROTOCOL,
        )

    def _shuffled(
        self,
        name: Compared,
        parameters: frozenset[str] | None,
        plain: Ranks,
        cases: Sequence[Case],
    ) -> dict[Compared, Similarity]:
        """Compare with the maps of the model with some of its weights shuffled."""
        if parameters is not None and not parameters:
            return {}
        pairs = []
        for runtime in self.ground.variants(self.turns, parameters):
            maps = draw(self.turns, runtime, self.method, cases, lambda case: (case.target,))
            pairs.append(correlations(plain, of_target(maps, cases)))
        _demand_half([bool(known) for known in np.isfinite(pairs).ravel()])
        return summaries({name: np.stack(pairs, axis=1)})


def affordable(method: Method, shape: Sequence[int]) -> int:
    """Return how many cases the method's cost allows.

    Raises
    ------
    NotCertifiable
        Not even the fewest are.
    """
    effort = method.estimate(shape, 1).effort * (1 + 2 * len(SEEDS))
    if effort * FEWEST > HIGHEST_EFFORT:
        raise NotCertifiable("too_costly")
    return max(FEWEST, min(CASES, EFFORT // max(effort, 1)))


def _usable(ranks: Ranks) -> Ranks:
    """Return the ranks without those of constant maps, which show nothing to compare."""
    usable = [each if each is not None and each.any() else None for each in ranks]
    _demand_half([each is not None for each in usable])
    return usable


def _demand_half(known: Sequence[bool]) -> None:
    """Raise `NotCertifiable` unless half of the maps can be used."""
    if 2 * sum(known) < len(known):
        raise NotCertifiable("no_usable_maps")
