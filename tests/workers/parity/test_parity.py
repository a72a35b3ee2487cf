"""What was observed against what the model says: scores, tolerances, decisions."""

from typing import Any

import pytest

from service.domain.explanation import Prediction
from service.domain.parity import Parity
from service.domain.request import Observed
from service.errors.base import Kind
from service.errors.requests import InvalidRequest, InvalidTarget
from service.queue.records import FAILURE_BYTES, failure_text
from workers.parity import TOLD, compare, refusal

MATCHED, MISMATCHED, NOT_GIVEN = Parity.MATCHED, Parity.MISMATCHED, Parity.NOT_GIVEN


def prediction(key: str, index: int, **changes: Any) -> Prediction:
    fields = {
        "key": key,
        "label": key.title(),
        "index": index,
        "logit": 1.0,
        "probability": 0.75,
        "threshold": 0.5,
        "above_threshold": True,
    }
    return Prediction.model_validate(fields | changes)


NODULE = prediction("nodule", 0)
EFFUSION = prediction("effusion", 1, logit=-1.0, probability=0.25, above_threshold=False)
FRACTURE = prediction("fracture", 2, threshold=None, above_threshold=None)
ANSWERED = (NODULE, EFFUSION, FRACTURE)


def outcome(of: str | int = "nodule", **said: Any) -> Parity:
    return compare([Observed(of=of, **said)], ANSWERED).outcome


def test_nothing_observed_is_not_given() -> None:
    report = compare([], ANSWERED)
    assert (report.outcome, report.pairs) == (NOT_GIVEN, ())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"score": 0.75, "tolerance": 0}, MATCHED),
        ({"score": 0.5, "tolerance": 0.25}, MATCHED),  # the tolerance itself still matches
        ({"score": 1.0, "tolerance": 0.25}, MATCHED),
        ({"score": 0.5, "tolerance": 0.2499}, MISMATCHED),
        ({"score": 1.0, "tolerance": 0.2499}, MISMATCHED),
        ({"score": 0.76}, MATCHED),
        ({"score": 0.78}, MISMATCHED),
        ({"score": 1.0, "tolerance": 0, "scale": "logit"}, MATCHED),
        ({"score": 0.75, "tolerance": 0.125, "scale": "logit"}, MISMATCHED),
        ({"score": 3.0, "tolerance": 2.0, "scale": "logit"}, MATCHED),
        ({"score": -3.0, "tolerance": 2.0, "scale": "logit"}, MISMATCHED),
        ({"positive": True}, MATCHED),
        ({"positive": False}, MISMATCHED),
        ({"score": 0.75, "positive": True}, MATCHED),
        ({"score": 0.75, "positive": False}, MISMATCHED),
        ({"score": 0.25, "positive": True}, MISMATCHED),
    ],
)
def test_scores_and_decisions_must_both_match(said: dict[str, Any], expected: Parity) -> None:
    assert outcome(**said) is expected


@pytest.mark.parametrize(("of", "positive"), [("effusion", False), (1, False), ("nodule", True)])
def test_a_decision_is_the_manifests(of: str | int, *, positive: bool) -> None:
    assert outcome(of, positive=positive) is MATCHED
    assert outcome(of, positive=not positive) is MISMATCHED


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"positive": True}, NOT_GIVEN),
        ({"positive": True, "score": 0.75}, MATCHED),
        ({"positive": True, "score": 0.25}, MISMATCHED),
    ],
)
def test_without_a_threshold_only_the_score_is_compared(
    said: dict[str, Any], expected: Parity
) -> None:
    assert outcome("fracture", **said) is expected


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((0.75, 0.25), MATCHED),
        ((0.75, 0.75), MISMATCHED),
        ((0.25, 0.25), MISMATCHED),
        ((0.75, None), MATCHED),
        ((0.25, None), MISMATCHED),
    ],
)
def test_one_mismatch_is_a_mismatch_of_all(
    scores: tuple[float, float | None], expected: Parity
) -> None:
    first, second = scores
    observed = [
        Observed(of="nodule", score=first),
        Observed(of="fracture", positive=True)
        if second is None
        else Observed(of="effusion", score=second),
    ]
    assert compare(observed, ANSWERED).outcome is expected


def test_a_pair_shows_both_sides() -> None:
    said = Observed(of=1, score=-1.5, scale="logit", tolerance=0.25, positive=False)
    (pair,) = compare([said], ANSWERED).pairs
    assert pair.model_dump() == {
        "key": "effusion",
        "outcome": MISMATCHED,
        "scale": "logit",
        "observed": -1.5,
        "found": -1.0,
        "tolerance": 0.25,
        "observed_positive": False,
        "found_positive": False,
    }


def test_a_class_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(InvalidTarget) as refused:
        compare([Observed(of="mass", score=0.5)], ANSWERED)
    assert refused.value.facts["classes"] == ["nodule", "effusion", "fracture"]


def test_a_probability_cannot_be_compared_with_a_model_that_gives_none() -> None:
    alone = (prediction("nodule", 0, probability=None, threshold=None, above_threshold=None),)
    with pytest.raises(InvalidRequest):
        compare([Observed(of="nodule", score=0.5)], alone)
    logit = Observed(of="nodule", score=1.0, scale="logit")
    assert compare([logit], alone).outcome is MATCHED


def test_a_refusal_tells_both_figures_of_what_differs_and_of_nothing_else() -> None:
    observed = [Observed(of="nodule", score=0.5), Observed(of="effusion", positive=False)]
    failure = refusal(compare(observed, ANSWERED)).failure()
    assert (failure.code, failure.kind) == ("parity_mismatch", Kind.DATA)
    assert failure.facts == {
        "count": 1,
        "mismatched": [
            {
                "key": "nodule",
                "scale": "probability",
                "observed": 0.5,
                "found": 0.75,
                "tolerance": 0.02,
                "found_positive": True,
            }
        ],
    }


def test_a_refusal_fits_the_record_of_its_job_however_much_differs() -> None:
    keys = [f"{k:02}" + "x" * 62 for k in range(64)]
    answered = [prediction(key, k, probability=1 / 3) for k, key in enumerate(keys)]
    observed = [Observed(of=key, score=2 / 3, positive=False, tolerance=1 / 7) for key in keys]
    failure = refusal(compare(observed, answered)).failure()
    mismatched = failure.facts["mismatched"]
    assert isinstance(mismatched, list)
    assert (failure.facts["count"], len(mismatched)) == (64, TOLD)
    assert len(failure_text(failure).encode()) <= FAILURE_BYTES
    assert "mismatched" in failure_text(failure)
