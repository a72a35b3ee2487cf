"""Models of several inputs through the whole line: what each input adds is what was planted."""

import io
import json

import numpy as np
import pydicom
import pytest

from examples.planted.dicom import plate
from examples.planted.pictures import LATER, hand_of
from service.domain.job import State
from tests.workers.line.conftest import MODELS

BY_SEX = "bone-age-by-sex-phantom"
BOY = hand_of(4_711, sex="M", weight=80.0)
AWAY = 6
"""Source pixels that a peak may lie beside what was planted."""

OCCLUSION = {"name": "occlusion", "parameters": {"window": 8}}
AGE = [{"kind": "regression", "of": "bone_age"}]
SHARING = ["integrated_gradients", "occlusion"]


@pytest.fixture(scope="module")
def served():
    return [MODELS / BY_SEX]


def explain(clinic, data, **asked):
    return clinic.explain(BY_SEX, clinic.take_in([data]), **asked)


# ------------------------------------------------------- numbers beside the image


@pytest.fixture(scope="module")
def boy(clinic):
    return explain(
        clinic,
        plate(BOY, "boy", "HAND"),
        targets=AGE,
        methods=[*SHARING[:1], OCCLUSION, "grad_cam"],
        artifacts=["json", "png", "dicom_sr"],
        checks="full",
    )


def of(told, method):
    (entry,) = [each for each in told.results if each.method == method]
    return entry


def test_the_numbers_of_the_header_reach_the_model(boy):
    record, told = boy
    assert record.state is State.SUCCEEDED, told.failure
    given = {each.key: (each.value, each.origin) for each in told.subject.variables}
    assert given == {"sex": (1, "dicom"), "weight": (80, "dicom")}
    assert abs(told.predictions[0].value - BOY.age) < 20


@pytest.mark.parametrize("method", SHARING)
def test_the_sex_adds_what_was_planted_and_the_weight_nothing(boy, method):
    shares = {each.key: each.relevance for each in of(boy[1], method).variables}
    assert shares["sex"] == pytest.approx(LATER / 2, abs=5)  # counted from between the two
    assert abs(shares["weight"]) < 5


def test_the_map_still_points_at_the_growth_center(boy):
    (mask,) = BOY.masks.values()
    assert len(boy[1].results) == len(SHARING) + 1
    for entry in boy[1].results:
        away = np.linalg.norm(np.argwhere(mask) - np.array(entry.map.peak), axis=1).min()
        assert away <= AWAY
        assert entry.trust.grade != "supported"  # no certificate was made for values
        assert not entry.omitted


def test_map_and_shares_together_are_the_change_in_score(boy):
    entry = of(boy[1], "integrated_gradients")
    checks = {each.name: each for each in entry.checks}
    assert checks["completeness"].outcome == "pass"
    assert checks["repeat"].outcome == "pass"
    shares = sum(each.relevance for each in entry.variables)
    assert entry.map.sum + shares == pytest.approx(entry.extras["score_change"], rel=0.05)
    assert abs(shares) > 0.05 * abs(entry.extras["score_change"])  # the map alone would fail


def test_a_method_of_images_alone_says_nothing_of_the_numbers(clinic, boy):
    entry = of(boy[1], "grad_cam")
    assert entry.variables == ()
    found = json.loads(clinic.artifact(boy[0], entry, "json"))["variables"]
    assert [(each["key"], each["relevance"]) for each in found] == [("sex", None), ("weight", None)]


def test_document_and_report_tell_each_share(clinic, boy):
    entry = of(boy[1], "integrated_gradients")
    shares = {each.label: each.relevance for each in entry.variables}
    found = json.loads(clinic.artifact(boy[0], entry, "json"))["variables"]
    assert {each["label"]: each["relevance"] for each in found} == pytest.approx(shares)
    report = pydicom.dcmread(io.BytesIO(clinic.artifact(boy[0], entry, "dicom_sr")))
    numbers = dict(measured(report))
    for label, share in shares.items():
        assert numbers[f"Relevance of {label}"] == pytest.approx(share, rel=1e-4)


def measured(dataset):
    """Yield each measurement of a report below a data set, by its meaning."""
    for item in dataset.get("ContentSequence", ()):
        if item.ValueType == "NUM":
            value = item.MeasuredValueSequence[0].NumericValue
            yield item.ConceptNameCodeSequence[0].CodeMeaning, float(value)
        yield from measured(item)


def test_a_request_says_otherwise_than_the_header(clinic, boy):
    asked = {"targets": AGE, "methods": [OCCLUSION], "values": {"sex": "F"}}
    _, told = explain(clinic, plate(BOY, "boy", "HAND"), **asked)
    given = {each.key: (each.value, each.origin) for each in told.subject.variables}
    assert given["sex"] == (0, "request")
    fall = boy[1].predictions[0].value - told.predictions[0].value
    assert fall == pytest.approx(LATER, abs=8)
    (share, _) = told.results[0].variables
    assert share.relevance == pytest.approx(-LATER / 2, abs=5)


def test_a_job_whose_image_lacks_a_number_fails_and_names_it(clinic):
    data = plate(BOY, "nobody", "HAND")
    data.PatientSex = "O"
    del data.PatientWeight
    record, told = explain(clinic, data)
    assert record.state is State.FAILED
    assert told.failure.code == "missing_value"
    assert told.failure.facts == {"missing": [], "off_range": ["sex"], "contradicted": []}


# ----------------------------------------------------------- some of the inputs alone


def test_an_input_that_is_not_asked_about_stays_as_it_is(clinic, boy):
    """Occlusion hides places beside the patient's own numbers anyway; a path leaves from them."""
    record, told = explain(
        clinic,
        plate(BOY, "boy", "HAND"),
        targets=AGE,
        methods=[*SHARING[:1], OCCLUSION],
        artifacts=["json"],
        inputs=["image"],
    )
    assert record.state is State.SUCCEEDED, told.failure
    before, joint = of(boy[1], "integrated_gradients"), of(boy[1], "occlusion")
    path, hidden = of(told, "integrated_gradients"), of(told, "occlusion")
    assert path.variables == hidden.variables == ()
    assert before.variables
    assert (hidden.map.sum, hidden.map.peak) == (pytest.approx(joint.map.sum), joint.map.peak)
    assert path.map.sum == pytest.approx(path.extras["score_change"], rel=0.05)
    sex = next(each.relevance for each in before.variables if each.key == "sex")
    change = before.extras["score_change"] - path.extras["score_change"]
    assert change == pytest.approx(LATER / 2, abs=5)  # what the sex adds beside no image at all
    assert abs(sex) > 5
    written = json.loads(clinic.artifact(record, path, "json"))["variables"]
    assert [each["relevance"] for each in written] == [None, None]
