"""Admission by precision: what is not known to be near enough is refused with its figures."""

import pytest

from service.admission import check_against_catalog
from service.domain.catalog import Catalog
from service.domain.precision import PrecisionRecord
from service.domain.request import ExplanationRequest
from service.errors.requests import PrecisionNotOffered
from service.precision import unmeasured
from tests.service.explain.test_certification import certificate
from tests.support.fake_fleet import CATALOG, PACKAGES, model

STEPS = {"path": "straight", "steps": 32}
"""What the model makes of a request that names no parameter."""


def record(method, outcome="offered", *, worst=0.9995, reason=None, gate=0.999, **parameters):
    return PrecisionRecord(
        id="e" * 64,
        method=method,
        parameters=parameters,
        device="cpu",
        outcome=outcome,
        reason=reason,
        gate=gate,
        worst=worst,
        median=worst and 0.9999,
        maps=60,
        cases=24,
        synthetic=True,
    )


def asked(*methods, precision="bfloat16"):
    fields = {"study": "st_1", "model": "chest", "targets": ["nodule"], "methods": methods}
    return ExplanationRequest.model_validate(fields | {"precision": precision})


def chest(*precisions, **changes):
    return model(
        "chest@1.0.0",
        PACKAGES["chest@1.0.0"],
        certificates=(
            certificate("saliency", "passed"),
            certificate("integrated_gradients", "passed", **STEPS),
        ),
        precisions=precisions,
        **changes,
    )


def check(request, entry):
    return check_against_catalog(request, Catalog(**{**dict(CATALOG), "models": (entry,)}))


def refusal(request, entry):
    with pytest.raises(PrecisionNotOffered) as caught:
        check(request, entry)
    assert caught.value.pointer == "/precision"
    return caught.value.facts


def test_float32_is_the_default_and_needs_nothing():
    assert asked("saliency", precision="float32") == ExplanationRequest.model_validate(
        {"study": "st_1", "model": "chest", "targets": ["nodule"], "methods": ["saliency"]}
    )
    assert check(asked("saliency", precision="float32"), chest()).name == "chest"


def test_what_was_found_near_enough_is_admitted():
    assert check(asked("saliency"), chest(record("saliency"))).name == "chest"


def test_a_method_that_did_not_pass_is_refused_with_the_figures_and_the_alternatives():
    far = record("saliency", "not_offered", worst=0.982, reason="gate_not_passed", gate=0.99)
    near = record("integrated_gradients", **STEPS)
    facts = refusal(asked("integrated_gradients", "saliency"), chest(far, near))
    assert (facts["method"], facts["reason"]) == ("saliency", "gate_not_passed")
    assert facts["measured"] == {
        "worst": 0.982,
        "median": 0.9999,
        "gate": 0.99,
        "maps": 60,
        "cases": 24,
        "synthetic": True,
        "protocol": 1,
    }
    assert facts["precisions"] == ["float32"]
    assert facts["methods"] == ["integrated_gradients"]


def test_what_is_offered_is_listed_once_and_as_the_catalog_lists_it():
    offered = [record("sweeping"), record("saliency"), record("saliency", samples=2)]
    facts = refusal(asked("occlusion"), chest(*offered))
    assert facts["methods"] == ["saliency", "sweeping"]


def test_what_was_not_measured_is_refused_until_it_is():
    facts = refusal(asked("saliency"), chest())
    assert (facts["reason"], facts["measured"]) == ("not_measured", None)
    pending = record("saliency", "pending", worst=None)
    assert refusal(asked("saliency"), chest(pending))["reason"] == "pending"


def test_other_parameters_need_a_measurement_of_their_own():
    entry = chest(record("integrated_gradients", **STEPS))
    given = {"name": "integrated_gradients", "parameters": {"steps": 32}}
    assert check(asked(given), entry).name == "chest"
    other = {"name": "integrated_gradients", "parameters": {"steps": 64}}
    assert refusal(asked(other), entry)["reason"] == "not_measured"
    (wished,) = unmeasured(asked(other), entry)
    assert wished.parameters == {"steps": 64}


@pytest.mark.parametrize("reason", ["runtime_cannot", "no_calibration_set"])
def test_a_model_that_can_have_none_says_why(reason):
    entry = chest(refused_precisions={"bfloat16": reason})
    assert refusal(asked("saliency"), entry)["reason"] == reason
    assert not list(unmeasured(asked("saliency"), entry))
