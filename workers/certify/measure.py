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

EFFORT: Final = 15_000
"""Forward passes for one method, or their like, beyond which less is measured."""

FEWEST: Final = 8
"""Cases below which nothing is said."""

HIGHEST_EFFORT: Final = 60_000
"""Forward passes beyond which not even the fewest cases are measured."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of a method is measured."""

    cases: int
    seeds: int
    """Shuffles that each case meets: all, or one, in turn."""

    @property
    def full(self) -> bool:
        """Whether every case meets every shuffle."""
        return self.seeds == len(SEEDS)

    def shared(self, shuffle: int) -> slice:
        """Return the cases that meet a shuffle."""
        return slice(None) if self.full else slice(shuffle, None, len(SEEDS))


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
        size = affordable(method, ground.cases[0].image.shape)
        cases = ground.cases[: size.cases]
        maps = self._draw(cases)
        return MethodRecord(
            id=subject.identify(method),
            method=method.name,
            parameters=method.model_dump(mode="json"),
            weights=subject.weights,
            runtime=ground.manifest.runtime,
            certificate=self._certificate(size, cases, maps),
            calibration=calibrated(ground, maps, signed=method.signed),
        )

    def _draw(self, cases: Sequence[Case]) -> list[dict[int, Drawn]]:
        """Return every map that is wanted of the unchanged model."""
        return draw(self.turns, self.ground.plain, self.method, cases, lambda case: case.explained)

    def _certificate(
        self, size: Size, cases: Sequence[Case], maps: Sequence[dict[int, Drawn]]
    ) -> Certificate:
        plain = _usable(of_target(maps, cases))
        head = self.ground.head
        similarities = {
            **self._shuffled("all_random", None, size, cases, plain),
            **(self._shuffled("head_random", head, size, cases, plain) if head else {}),
            **unchanged(plain, of_other(maps, cases), cases),
        }
        edges = control(cases, similarities)
        if outcome_of(edges, full=size.full) != "failed":
            raise NotCertifiable("control_passed")
        calibration = self.ground.manifest.calibration
        return Certificate(
            outcome=outcome_of(similarities, full=size.full),
            similarities=similarities,
            control=edges,
            cases=size.cases,
            seeds=size.seeds,
            synthetic=calibration is not None and calibration.synthetic,
            protocol=PROTOCOL,
        )

    def _shuffled(
        self,
        name: Compared,
        parameters: frozenset[str] | None,
        size: Size,
        cases: Sequence[Case],
        plain: Ranks,
    ) -> dict[Compared, Similarity]:
        """Compare with the maps of the model with some of its weights shuffled."""
        pairs = np.full((len(cases), len(SEEDS)), np.nan)
        for shuffle, runtime in enumerate(self.ground.variants(self.turns, parameters)):
            part = size.shared(shuffle)
            maps = draw(self.turns, runtime, self.method, cases[part], lambda case: (case.target,))
            pairs[part, shuffle] = correlations(plain[part], of_target(maps, cases[part]))
        if 2 * np.isfinite(pairs).sum() < size.cases * size.seeds:
            raise NotCertifiable("no_usable_maps")
        return summaries({name: pairs})


def affordable(method: Method, shape: Sequence[int]) -> Size:
    """Return how much of a method may be measured for its cost.

    What is too dear for every case to meet every shuffle is measured with one
    shuffle a case: more cases tell more than the same cases again.

    Raises
    ------
    NotCertifiable
        Not even the fewest cases are.
    """
    effort = max(1, method.estimate(shape, 1).effort)
    if effort * CASES * (1 + 2 * len(SEEDS)) <= EFFORT:
        return Size(CASES, len(SEEDS))
    if effort * FEWEST * 3 > HIGHEST_EFFORT:
        raise NotCertifiable("too_costly")
    return Size(max(FEWEST, min(CASES, EFFORT // (effort * 3))), 1)


def _usable(ranks: Ranks) -> Ranks:
    """Return the ranks without those of constant maps, which show nothing to compare."""
    usable = [each if each is not None and each.any() else None for each in ranks]
    if 2 * sum(each is not None for each in usable) < len(usable):
        raise NotCertifiable("no_usable_maps")
    return usable
