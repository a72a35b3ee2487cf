"""Whether hiding the places that a map marks moves the score."""

from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from service.domain.explanation import Check
from service.domain.trust import STATEMENTS, Flag, Grade, evidence_of
from workers.measures.bank import AXES, BANK, Bank
from workers.measures.base import MEASURES, Case, Measure, Outcome
from workers.measures.bearing import Bearing, Bearings, all_bearings, too_small

OUTCOMES: Final[dict[Grade, Outcome]] = {
    Grade.SUPPORTED: "pass",
    Grade.WEAK: "weak",
    Grade.NOT_SUPPORTED: "fail",
}


@MEASURES.register("probe_bank")
class ProbeBank(Measure):
    """The map's places are those where hiding the image moves the score.

    One place after the other is blurred, the same places for every map of the
    image; the map's mass in each place is correlated with the fall of the
    score there (:mod:`workers.measures.bearing`). `p` is the share of flips,
    turns and shifts of the map itself that agree at least as well.

    References
    ----------
    Petsiuk, Das, Saenko (2018). RISE. BMVC. arXiv:1806.07421: the score as
    witness of a map. Places that do not depend on the map, and the null of the
    map's own transforms, are ours.
    """

    title = "Probe bank"
    passes = "25 forward rows an image (27 for a volume), for all methods and targets together"
    inquiry = BANK
    meaning = "Hiding the places that the map marks moves the score more than hiding others."
    limits = (
        "It cannot see a shift by less than a cell, nor that a map is another patient's where the"
        " finding lies alike; nor whether the model is right."
    )
    words: ClassVar = {
        "pass": STATEMENTS[Grade.SUPPORTED],
        "weak": STATEMENTS[Grade.WEAK],
        "fail": STATEMENTS[Grade.NOT_SUPPORTED],
        "uninformative": STATEMENTS[Grade.UNINFORMATIVE],
        "too_small": "The image, or the model's input, has too few pixels to hide a single place.",
        "constant_map": "The map marks no place more than another.",
        "non_finite": "The map holds values that are not finite.",
        "no_bank": "The model did not answer on the image with hidden places.",
    }

    @override
    def judge(self, case: Case) -> Check:
        """Return r, p, and how the score fell at each place."""
        (check,) = self.judge_all([case])
        return check

    @override
    def judge_all(self, cases: Sequence[Case]) -> list[Check]:
        """Return r, p, and how the score fell at each place, for each map."""
        if why := _hindrance(cases[0]):
            return [self.check("not_applicable", why) for _ in cases]
        drops = np.stack([_drops(case) for case in cases], axis=1)
        scores = np.array([case.score for case in cases])
        found = all_bearings([case.square for case in cases], drops, scores)
        return [self._told(*each) for each in zip(cases, found, strict=True)]

    def _told(self, case: Case, found: Bearings) -> Check:
        """Return the outcome on a map that was held against the bank."""
        drops = _drops(case)
        if found.p is None or found.r is None:
            marks_none = found.outcome == "constant_map"
            values = {"largest_fall": float(drops.max())} if marks_none else None
            return self.check("not_applicable", found.outcome, values=values, passes=len(drops))
        return self.check(
            OUTCOMES[evidence_of(intact=True, informative=True, p=found.p)],
            *_flags(found, of_scores=case.of_scores),
            values={
                "r": found.r,
                "p": found.p,
                "transforms": found.transforms,
                "drops": drops.tolist(),
            },
            passes=len(drops),
        )


def _hindrance(case: Case) -> Bearing | None:
    """Return why the maps of an image cannot be held against the bank, if so."""
    if len(case.extent) in AXES and too_small(case.extent, case.pixels):
        return "too_small"
    return "no_bank" if case.answers.get(BANK.name) is None else None


def _drops(case: Case) -> NDArray[np.float64]:
    """Return how the score explained fell at each place, shape ``(cells,)``."""
    bank: Bank = case.answers[BANK.name]
    return bank.drops[:, case.target]


def _flags(found: Bearings, *, of_scores: bool) -> list[Flag]:
    """Return what a reader should know of this comparison."""
    flags = []
    if of_scores:
        flags.append(Flag.SAME_KIND_OF_EVIDENCE)
    if found.few_levels:
        flags.append(Flag.FEW_LEVELS)
    return flags
