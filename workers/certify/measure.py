"""One method on one model: its certificate and its calibration, from the same cases.

Every number comes of copies of the model that run one row at a time, so that
equal inputs give equal numbers whatever else the device does meanwhile.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from service.domain.certificate import Certificate, Compared, MethodRecord, Similarity
from workers.certify.calibration import calibrated
from workers.certify.cases import Case, NotCertifiable
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
from workers.certify.maps import MapsByClass, draw
from workers.certify.turns import Turns
from workers.certify.verdict import outcome_of
from workers.certify.weights import SEEDS
from workers.methods.base import Method
from workers.records import PROTOCOL, Subject, uncertified
from workers.runtimes.base import Runtime
from workers.views import cost_of

HIGHEST_EFFORT: Final = 500_000
"""Forward passes for one method, or their like, beyond which nothing is measured."""


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """One method, its parameters settled, on the ground of one model."""

    method: Method
    ground: Ground
    turns: Turns

    def record(self, subject: Subject) -> MethodRecord:
        """Certify and calibrate the method; calibrate it alone where no weights are lent.

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
        if self._effort() > HIGHEST_EFFORT:
            raise NotCertifiable("too_costly")
        maps, *heads = self._by_head()
        plain = _usable(of_target(maps, ground.cases))
        return MethodRecord(
            id=subject.identify(method),
            method=method.name,
            parameters=method.model_dump(mode="json"),
            weights=subject.weights,
            runtime=ground.manifest.runtime,
            certificate=self._certificate(plain, maps, heads),
            calibration=calibrated(ground, self._as_served(maps), signed=method.signed),
        )

    def _effort(self) -> int:
        """Return the forward passes of all maps, as if no two models shared any."""
        cases = self.ground.cases
        models = 1 if self.ground.copies is None else 1 + 2 * len(SEEDS)
        several = cases[0].several
        one = cost_of(self.method, cases[0].image.shape, 1, several=several).effort
        return one * len(cases) * models

    def _certificate(
        self, plain: Ranks, maps: MapsByClass, heads: Sequence[MapsByClass]
    ) -> Certificate:
        ground = self.ground
        if ground.copies is None:
            return uncertified("model_not_lent")
        shuffles = (self._of_target(each) for each in ground.copies.variants(self.turns))
        similarities = {
            **self._shuffled("all_random", plain, shuffles),
            **(self._shuffled("head_random", plain, heads) if heads else {}),
            **unchanged(plain, of_other(maps, ground.cases), ground.cases),
        }
        edges = control(ground.cases, similarities)
        if outcome_of(edges) != "failed":
            raise NotCertifiable("control_passed")
        calibration = ground.manifest.calibration
        return Certificate(
            outcome=outcome_of(similarities),
            similarities=similarities,
            control=edges,
            cases=len(ground.cases),
            seeds=len(SEEDS),
            synthetic=calibration is not None and calibration.synthetic,
            surrogate=ground.copies.surrogate,
            protocol=PROTOCOL,
        )

    def _shuffled(
        self, name: Compared, plain: Ranks, shuffles: Iterable[MapsByClass]
    ) -> dict[Compared, Similarity]:
        """Compare with the maps of the model with some of its weights shuffled."""
        pairs = np.stack(
            [correlations(plain, of_target(maps, self.ground.cases)) for maps in shuffles], axis=1
        )
        if 2 * np.isfinite(pairs).sum() < pairs.size:
            raise NotCertifiable("no_usable_maps")
        return summaries({name: pairs})

    # --------------------------------------------------------------- the maps

    def _by_head(self) -> list[MapsByClass]:
        """Return the maps of the model as it is, then those with each shuffled head."""
        copies = self.ground.copies
        if copies is not None and copies.many is not None:
            return self._of_every_head(copies.many)
        unchanged = self.ground.plain if copies is None else copies.plain
        plain = self._maps(unchanged, lambda case: case.explained)
        if copies is None or not copies.head:
            return [plain]
        return [plain, *map(self._of_target, copies.variants(self.turns, copies.head))]

    def _as_served(self, maps: MapsByClass) -> MapsByClass:
        """Return the maps that are calibrated: of the model itself where that serves the method.

        Parameters
        ----------
        maps
            Of the copy that is unchanged.
        """
        ground = self.ground
        if ground.copies is None or not ground.copies.surrogate:
            return maps
        if not ground.plain.probed.computes(self.method.needs):
            return maps
        return self._maps(ground.plain, lambda case: case.present)

    def _of_every_head(self, many: Runtime) -> list[MapsByClass]:
        """Explain all heads at once: classes of the second follow those of the first."""
        classes = len(self.ground.manifest.classes)
        first = [classes * head for head in range(1 + len(SEEDS))]

        def wanted(case: Case) -> tuple[int, ...]:
            return (*case.explained, *(case.target + offset for offset in first[1:]))

        drawn = self._maps(many, wanted)
        return [
            [{k - offset: each[k] for k in each if 0 <= k - offset < classes} for each in drawn]
            for offset in first
        ]

    def _of_target(self, runtime: Runtime) -> MapsByClass:
        return self._maps(runtime, lambda case: (case.target,))

    def _maps(self, runtime: Runtime, classes: Callable[[Case], tuple[int, ...]]) -> MapsByClass:
        return draw(self.turns, runtime, self.method, self.ground.cases, classes)


def _usable(ranks: Ranks) -> Ranks:
    """Return the ranks without those of constant maps, which show nothing to compare."""
    usable = [each if each is not None and each.any() else None for each in ranks]
    if 2 * sum(each is not None for each in usable) < len(usable):
        raise NotCertifiable("no_usable_maps")
    return usable
