"""Parity: whether the model says on this image what the issuing AI said of it.

Compared on the clean forward pass, before anything is attributed: a map of
another answer than the one that was issued explains nothing.
"""

from collections.abc import Sequence
from typing import Final

from service.domain.explanation import Prediction
from service.domain.parity import Pair, Parity, ParityReport, worst
from service.domain.request import Observed
from service.errors.requests import InvalidRequest, InvalidTarget
from service.errors.studies import ParityMismatch

TOLD: Final = 6
"""Mismatched classes that a failure tells of, so that it fits the job's record."""


def compare(observed: Sequence[Observed], predictions: Sequence[Prediction]) -> ParityReport:
    """Hold what was observed against what the model says here.

    Scores match when they differ by no more than the tolerance, on the scale
    that was stated; decisions match when they are the same, the model's own
    being by the manifest's threshold. Of a class without a threshold no
    decision can be compared.

    Raises
    ------
    InvalidTarget
        The model has no such class.
    InvalidRequest
        A probability was observed, and the model gives none.
    """
    return ParityReport.of(_pair(each, _answer(each, predictions)) for each in observed)


def refusal(report: ParityReport) -> ParityMismatch:
    """Return the failure of a job whose model says something else than was observed."""
    pairs = [pair for pair in report.pairs if pair.outcome is Parity.MISMATCHED]
    return ParityMismatch(
        "The model says something else on this image than was observed; check that the same model"
        " version, preprocessing and image were used, or set 'allow_mismatch'.",
        count=len(pairs),
        mismatched=[
            pair.model_dump(mode="json", exclude={"outcome"}, exclude_none=True)
            for pair in pairs[:TOLD]
        ],
    )


def _answer(observed: Observed, predictions: Sequence[Prediction]) -> Prediction:
    """Return what the model said of the class that was observed."""
    for each in predictions:
        if observed.of in (each.key, each.index):
            return each
    raise InvalidTarget(
        "The model has no such class.", classes=[each.key for each in predictions[:100]]
    )


def _pair(observed: Observed, answer: Prediction) -> Pair:
    """Compare one class by its score, its decision, or both."""
    found: float | None = getattr(answer, observed.scale)
    if found is None:
        raise InvalidRequest("The model gives no numbers of this 'scale'; set another.")
    score, positive = observed.score, observed.positive
    same_score = None if score is None else abs(score - found) <= observed.tolerance
    undecided = positive is None or answer.above_threshold is None
    same_decision = None if undecided else positive == answer.above_threshold
    return Pair(
        key=answer.key,
        outcome=worst(map(_outcome, (same_score, same_decision))),
        scale=observed.scale,
        observed=score,
        found=found,
        tolerance=observed.tolerance,
        observed_positive=positive,
        found_positive=answer.above_threshold,
    )


def _outcome(same: bool | None) -> Parity:
    """Put one comparison into a word; `None` was none."""
    if same is None:
        return Parity.NOT_GIVEN
    return Parity.MATCHED if same else Parity.MISMATCHED
