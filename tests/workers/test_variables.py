"""Where a patient's values come from, and that none is told in an error."""

import pytest
from pydantic import ValidationError

from service.domain.variable import Variable
from service.errors.studies import MissingValue
from tests.support.phantom_dicom import encoded, image
from workers.variables import beside, told

AGE = Variable(
    key="age", label="Age", unit="mo", minimum=0, maximum=240, baseline=120, source="PatientAge"
)
SEX = Variable(
    key="sex", label="Sex", codes={"F": 0, "M": 1}, baseline=0.5, default=0.5, source="PatientSex"
)
SIZE = Variable(
    key="size", label="Size", unit="cm", minimum=30, maximum=220, baseline=100, source="PatientSize"
)
DOSE = Variable(key="dose", label="Dose", minimum=0, maximum=9, baseline=1, default=2)


@pytest.fixture
def header(tmp_path):
    """A function that writes a header with elements of one's choice."""

    def of(**elements):
        path = tmp_path / "header.dcm"
        path.write_bytes(encoded(image(**elements)))
        return path

    return of


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("034Y", "a", 34),
        ("034Y", "mo", 408),
        ("018M", "a", 1.5),
        ("008W", "d", 56),
        ("003D", "d", 3),
        ("014D", "wk", 2),
        ("", "a", None),
        ("34", "a", None),
    ],
)
def test_an_age_string_is_read_in_the_variables_unit(header, text, unit, expected):
    age = Variable(
        key="age", label="Age", unit=unit, minimum=0, maximum=500, baseline=1, source="PatientAge"
    )
    found = told(header(PatientAge=text), [age])["age"]
    assert found == (expected if expected is None else pytest.approx(expected))


def test_request_comes_before_header_and_header_before_default(header):
    said = told(header(PatientAge="010Y", PatientSex="F", PatientSize="1.4"), [AGE, SEX, SIZE])
    facts = beside([AGE, SEX, SIZE, DOSE], {"age": 60}, said)
    assert [(each.key, each.value, each.origin) for each in facts] == [
        ("age", 60, "request"),
        ("sex", 0, "dicom"),
        ("size", 140, "dicom"),
        ("dose", 2, "default"),
    ]
    (fact,) = beside([SEX], {}, told(header(), [SEX]) | {"sex": None})
    assert (fact.value, fact.origin) == (0.5, "default")


def test_what_is_missing_or_off_its_range_is_named_and_not_told(header):
    said = told(header(PatientAge="091Y", PatientSex="O", PatientSize=""), [AGE, SEX, SIZE])
    with pytest.raises(MissingValue) as refused:
        beside([AGE, SEX, SIZE], {}, said)
    facts = {"missing": ["size"], "off_range": ["age", "sex"], "contradicted": []}
    assert refused.value.facts == facts
    spoken = str(refused.value.failure())
    assert "91" not in spoken
    assert "1092" not in spoken


def test_a_header_is_read_only_where_a_variable_wants_it(tmp_path):
    assert told(tmp_path / "nowhere.dcm", [DOSE]) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minimum": None}, "'minimum' and 'maximum', or 'codes'"),
        ({"codes": {"A": 1, "B": 2}}, "'minimum' and 'maximum', or 'codes'"),
        ({"maximum": 0}, "more than one value"),
        ({"baseline": 300}, "must lie in the range"),
        ({"default": -1}, "must lie in the range"),
        ({"unit": "kg"}, "a, mo, wk, d"),
        ({"source": "PatientSex"}, "needs 'codes'"),
        ({"source": "PatientName"}, "PatientAge"),
        ({"std": 0}, "greater than 0"),
    ],
)
def test_a_variable_that_cannot_be_right_is_refused(changes, words):
    with pytest.raises(ValidationError) as refused:
        Variable.model_validate(AGE.model_dump() | changes)
    assert words in str(refused.value)


def test_headers_of_several_images_must_not_contradict_each_other():
    twice = ({"age": 40.0}, {"age": None}, {"age": 40.0})
    (fact,) = beside((AGE,), {}, *twice)
    assert (fact.value, fact.origin) == (40.0, "dicom")
    with pytest.raises(MissingValue) as refused:
        beside((AGE,), {}, {"age": 40.0}, {"age": 41.0})
    assert refused.value.facts["contradicted"] == ["age"]
    (fact,) = beside((AGE,), {"age": 50}, {"age": 40.0}, {"age": 41.0})
    assert (fact.value, fact.origin) == (50.0, "request")
