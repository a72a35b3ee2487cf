"""Whether hiding the places that a map marks moves the score."""

from typing import ClassVar, Final

from typing_extensions import override

from service.domain.explanation import Check
from service.domain.trust import STATEMENTS, Flag, Grade, evidence_of
from workers.measures.bank import AXES, BANK, Bank
from workers.measures.base import MEASURES, Case, Measure, Outcome
from workers.measures.bearing import Bearings, bearings, too_small

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
        bank: Bank | None = case.answers.get(BANK.name)
        if bank is None:
            small = len(case.extent) in AXES and too_small(case.extent, case.pixels)
            return self.check("not_applicable", "too_small" if small else "no_bank")
        drops = bank.drops[:, case.target]
        found = bearings(case.values, case.grid, case.extent, drops, case.score)
        if found.p is None or found.r is None:
            return self.check("not_applicable", found.outcome, passes=len(drops))
        return self.check(
            OUTCOMES[evidence_of(intact=True, informative=True, p=found.p)],
            *_flags(found, of_scores=case.of_scores),
            values={
                "r": found.r,
                "p": found.p,
                "transforms": found.transforms,
                "drops": [float(drop) for drop in drops],
            },
            passes=len(drops),
        )


def _flags(found: Bearings, *, of_scores: bool) -> list[Flag]:
    """Return what a reader should know of this comparison."""
    flags = []
    if of_scores:
        flags.append(Flag.SAME_KIND_OF_EVIDENCE)
    if found.few_levels:
        flags.append(Flag.FEW_LEVELS)
    return flags
