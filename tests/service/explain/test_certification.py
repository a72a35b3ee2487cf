"""Admission by certificates: which one counts, and what a refusal tells."""

import pytest

from service.admission import check_against_catalog
from service.domain.catalog import CalibrationEntry, CertificateEntry
from service.domain.certificate import Similarity
from service.domain.request import ExplanationRequest
from service.errors.requests import MethodUncertified
from tests.support.fake_fleet import CATALOG, PACKAGES, method, model


def calibration(supported):
    weak = supported < 0.5
    return CalibrationEntry(maps=50, supported=supported, weak=weak, r=None, p=None, reference=1.0)


def certificate(method, outcome, *, default=True, supported=None, **parameters):
    alike = Similarity(value=0.95, low=0.9, high=0.99, pairs=96)
    return CertificateEntry(
        method=method,
        parameters=parameters,
        default=default,
        id="f" * 64,
        outcome=outcome,
        similarities={} if outcome == "pending" else {"head_random": alike},
        cases=24,
        seeds=4,
        protocol=1,
        calibration=None if supported is None else calibration(supported),
    )


def check(*certificates, **changes):
    chest = model("chest@1.0.0", PACKAGES["chest@1.0.0"], certificates=certificates)
    fields = {"study": "st_1", "model": "chest", "targets": ["nodule"], "methods": ["saliency"]}
    request = ExplanationRequest.model_validate(fields | changes)
    methods = (*CATALOG.methods, method("deconvolution").model_copy(update={"weak": True}))
    known = {"models": (chest,), "methods": methods}
    return check_against_catalog(request, CATALOG.model_copy(update=known))


STEPS = {"path": "straight", "steps": 32}


def test_a_method_that_failed_is_refused_with_its_numbers_and_those_that_passed():
    with pytest.raises(MethodUncertified) as caught:
        check(
            certificate("saliency", "failed"),
            certificate("integrated_gradients", "passed", supported=0.98, **STEPS),
            certificate("occlusion", "weakly_specific", supported=0.8, window=16),
        )
    assert caught.value.pointer == "/methods/0/name"
    assert caught.value.facts["methods"] == ["integrated_gradients"]
    told = caught.value.facts["certificate"]
    assert told["outcome"] == "failed"
    assert told["similarities"]["head_random"] == {
        "value": 0.95,
        "low": 0.9,
        "high": 0.99,
        "pairs": 96,
    }


def refused(*others):
    with pytest.raises(MethodUncertified) as caught:
        check(certificate("saliency", "failed", supported=0.9), *others)
    return caught.value.facts["methods"], caught.value.detail


def test_the_methods_to_use_instead_are_not_weak_themselves_and_the_best_comes_first():
    """Figures of `models/chest-phantom`, where `guided_backprop` is refused."""
    methods, detail = refused(
        certificate("deconvolution", "passed", supported=0.16),
        certificate("grad_cam", "passed", supported=0.74),
        certificate("input_x_gradient", "passed", supported=0.44),
        certificate("smooth_grad", "passed", supported=0.5),
        certificate("guided_grad_cam", "weakly_specific", supported=0.6),
        certificate("integrated_gradients", "passed", supported=0.98, **STEPS),
        certificate("rise", "passed", default=False, supported=0.99),
        certificate("eigen_cam", "failed", supported=0.97),
        certificate("occlusion", "not_certifiable", supported=0.8),
        certificate("lime", "passed"),
        certificate("kernel_shap", "pending"),
    )
    assert methods == ["integrated_gradients", "grad_cam", "smooth_grad"]
    assert "Choose one of 'methods'" in detail


@pytest.mark.parametrize(
    "others",
    [
        (),
        (certificate("saliency", "passed", default=False, supported=0.9),),
        (certificate("deconvolution", "passed", supported=0.16),),
        (certificate("deconvolution", "passed", supported=0.9),),
    ],
)
def test_where_no_method_does_better_none_is_named_and_the_words_say_so(others):
    methods, detail = refused(*others)
    assert methods == []
    assert "Choose one of" not in detail
    assert "No other method" in detail
    assert "allow_uncertified" in detail


def test_a_request_may_allow_it():
    assert check(certificate("saliency", "failed"), allow_uncertified=True).name == "chest"


@pytest.mark.parametrize("outcome", ["passed", "weakly_specific", "not_certifiable", "pending"])
def test_any_other_outcome_runs(outcome):
    assert check(certificate("saliency", outcome)).name == "chest"


def test_without_a_certificate_a_method_runs():
    assert check().name == "chest"
    assert check(certificate("occlusion", "failed", window=16)).name == "chest"


def asks(**parameters):
    return {"methods": [{"name": "integrated_gradients", "parameters": parameters}]}


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ({}, False),
        ({"steps": 32}, False),
        ({"steps": 64}, True),
        ({"steps": 64, "path": "straight"}, True),
        ({"steps": 64, "path": "guided"}, False),
    ],
)
def test_the_certificate_of_the_parameters_asked_for_counts_else_that_of_the_defaults(
    asked, refused
):
    known = (
        certificate("integrated_gradients", "passed", **STEPS),
        certificate("integrated_gradients", "failed", default=False, **STEPS | {"steps": 64}),
    )
    if refused:
        with pytest.raises(MethodUncertified):
            check(*known, **asks(**asked))
    else:
        assert check(*known, **asks(**asked)).name == "chest"


def test_where_the_defaults_failed_other_parameters_need_a_certificate_of_their_own():
    failed = certificate("integrated_gradients", "failed", **STEPS)
    with pytest.raises(MethodUncertified):
        check(failed, **asks(steps=64))
    other = certificate("integrated_gradients", "passed", default=False, **STEPS | {"steps": 64})
    assert check(failed, other, **asks(steps=64)).name == "chest"
