"""Risks, and events by a time, held against survival curves written out in numpy."""

from typing import Any

import numpy as np
import pytest
import torch

from service.domain.manifest import Manifest
from service.errors.requests import InvalidTarget
from tests.workers.targets.test_classes import manifest
from tests.workers.targets.test_resolve import answer, one, resolved
from workers.rows import Given
from workers.runtimes.base import Work
from workers.runtimes.batch import scores_of
from workers.targets.resolve import predict
from workers.targets.survival import EventBy, log_masses

TIMES = (90, 180, 365)
LOGITS = (-2.0, 0.5, -1.0)
BEYOND = (*LOGITS, 0.7)
ZEROS = [{"title": "ordinary", "input": "t.dcm", "logits": [0], "tolerance": 0.1}]


def survival(decoding: str = "hazards", **changes: Any) -> Manifest:
    event = {"key": "relapse", "label": "Relapse"}
    if decoding != "log_hazard":
        event |= {"unit": "d", "horizons": [{"time": each} for each in TIMES]}
    outputs = [{"decoding": decoding, "event": event | changes}]
    return manifest("survival", outputs=outputs, selftests=ZEROS)


def incidences(decoding: str) -> np.ndarray:
    """Return the probability of the event by each time, from the definition."""
    if decoding == "masses":
        each = np.exp(BEYOND) / np.exp(BEYOND).sum()
        return np.cumsum(each)[:-1]
    spared = 1.0
    found = []
    for logit in LOGITS:
        spared *= 1 - 1 / (1 + np.exp(-logit))
        found.append(1 - spared)
    return np.array(found)


OUTPUTS = {"hazards": LOGITS, "masses": BEYOND}


@pytest.mark.parametrize("decoding", OUTPUTS)
def test_predictions_are_the_curve_of_incidence(decoding):
    said = predict(answer(survival(decoding), OUTPUTS[decoding]))
    assert [each.key for each in said] == ["relapse-by-90d", "relapse-by-180d", "relapse-by-365d"]
    assert [each.label for each in said][-1] == "Relapse by 365 d"
    np.testing.assert_allclose([each.probability for each in said], incidences(decoding))


@pytest.mark.parametrize("decoding", OUTPUTS)
@pytest.mark.parametrize("index", range(len(TIMES)))
def test_a_horizon_is_explained_by_the_log_odds_of_the_event_by_then(decoding, index):
    given = answer(survival(decoding), OUTPUTS[decoding])
    found = one(given, kind="time_to_event", horizon=TIMES[index])
    p = incidences(decoding)[index]
    assert found.target.score == pytest.approx(np.log(p / (1 - p)))
    assert found.target.probability == pytest.approx(p)
    assert found.target.quantity == "log odds of the event by then"
    assert found.target.kind == "time_to_event"
    assert found.target.again.horizon == TIMES[index]


@pytest.mark.parametrize("decoding", OUTPUTS)
def test_gradients_are_those_of_finite_differences(decoding):
    scalar = EventBy(2, hazards=decoding == "hazards")
    start = torch.tensor([OUTPUTS[decoding]], dtype=torch.float64)
    leaf = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(scalar(leaf).sum(), leaf)
    steps = 1e-6 * torch.eye(start.shape[1], dtype=torch.float64)
    slopes = (scalar(start + steps) - scalar(start - steps)) / 2e-6
    torch.testing.assert_close(gradient[0], slopes, rtol=1e-6, atol=1e-8)


def test_of_one_interval_it_is_the_logit_itself():
    logits = torch.linspace(-60, 60, 25)[:, None]
    torch.testing.assert_close(EventBy(1, hazards=True)(logits), logits[:, 0])


@pytest.mark.parametrize("far", [-60.0, 60.0])
def test_scores_and_gradients_live_where_the_event_is_nearly_excluded_or_nearly_certain(far):
    """In single precision the probability is 0 or 1 there, and has no gradient left."""
    logits = torch.full((1, 3), far, requires_grad=True)
    score = EventBy(3, hazards=True)(logits)
    exact = np.log(np.expm1(3 * np.log1p(np.exp(far)))) if far < 0 else 3 * far
    assert score.item() == pytest.approx(exact, rel=1e-6)
    (gradient,) = torch.autograd.grad(score.sum(), logits)
    assert (gradient > 0.3).all()


def test_masses_of_hazards_add_up_to_one():
    logits = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(log_masses(logits).exp().sum(1), torch.ones(5, dtype=torch.float64))


def test_a_risk_is_the_log_hazard():
    given = answer(survival("log_hazard"), [0.8])
    found = one(given, kind="time_to_event", of="risk")
    assert (found.target.score, found.target.quantity) == (pytest.approx(0.8), "log hazard")
    assert (found.target.key, found.target.probability) == ("relapse-risk", None)
    (said,) = predict(given)
    assert (said.value, said.probability) == (pytest.approx(0.8), None)
    assert found.scalar(torch.tensor([[2.0], [3.0]])).tolist() == [2, 3]


def test_risks_and_times_share_a_batch():
    given = answer(survival(), LOGITS)
    asked = [{"kind": "time_to_event", "horizon": each} for each in TIMES[:2]]
    chosen = resolved(given, *asked).chosen
    assert [each.target.key for each in chosen] == ["relapse-by-90d", "relapse-by-180d"]
    work = Work(Given(torch.zeros(2, 1)), tuple(each.scalar for each in chosen), ((), ()))
    scores = scores_of(torch.tensor([LOGITS, LOGITS]), work)
    assert scores[0].tolist() == pytest.approx([each.target.score for each in chosen])


def test_a_threshold_decides_of_its_own_time():
    horizons = [{"time": 90, "threshold": 0.2}, {"time": 180, "threshold": 0.2}, {"time": 365}]
    said = predict(answer(survival(horizons=horizons), LOGITS))
    assert [each.above_threshold for each in said] == [False, True, None]


def test_a_time_that_is_none_of_the_models_is_refused_with_those_it_has():
    barred = [{"time": 90, "not_for_use": "Too few cases."}, {"time": 180}]
    given = answer(survival(horizons=barred), LOGITS[:2])
    for asked in (90, 200):
        with pytest.raises(InvalidTarget) as refusal:
            one(given, kind="time_to_event", horizon=asked)
        assert refusal.value.facts["horizons"] == [180]
    with pytest.raises(InvalidTarget):
        one(given, kind="time_to_event", of="risk")
    with pytest.raises(InvalidTarget):
        one(answer(survival("log_hazard"), [0.8]), kind="time_to_event", horizon=90)


@pytest.mark.parametrize("outputs", [LOGITS[:2], BEYOND])
def test_more_or_fewer_numbers_than_times_are_refused(outputs):
    with pytest.raises(InvalidTarget):
        predict(answer(survival(), outputs))


def test_by_default_the_latest_time_is_explained():
    barred = [{"time": 90}, {"time": 180}, {"time": 365, "not_for_use": "Too few cases."}]
    (target,) = survival(horizons=barred).default_targets
    assert (target.kind, target.horizon) == ("time_to_event", 180)
    (target,) = survival("log_hazard").default_targets
    assert target.of == "risk"
