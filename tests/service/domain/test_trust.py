"""Grades and the words for them."""

import re

import pytest

from service.command import report
from service.domain.parity import WORDS
from service.domain.trust import (
    ALWAYS,
    BECAUSE,
    OF_THE_METHOD,
    STATEMENTS,
    Flag,
    Grade,
    TrustReport,
    evidence_of,
    grade_of,
    statements,
)
from workers.drawing import picture
from workers.measures.base import MEASURES

FORBIDDEN = re.compile(
    r"trust|verif|validat|confiden|reliab|certif|accura|\btick|green|\d|%|percent", re.IGNORECASE
)


@pytest.mark.parametrize(
    ("p", "grade"),
    [
        (1 / 128, Grade.SUPPORTED),
        (0.05, Grade.SUPPORTED),
        (0.0501, Grade.WEAK),
        (0.2, Grade.WEAK),
        (0.2001, Grade.NOT_SUPPORTED),
        (float("nan"), Grade.NOT_SUPPORTED),
        (None, Grade.NOT_CHECKED),
    ],
)
def test_the_evidence_follows_from_p(p: float | None, grade: Grade) -> None:
    assert evidence_of(intact=True, informative=True, p=p) is grade


def test_a_map_that_cannot_be_read_has_no_other_evidence() -> None:
    assert evidence_of(intact=False, informative=True, p=0.01) is Grade.INVALID
    assert evidence_of(intact=True, informative=False, p=0.01) is Grade.UNINFORMATIVE


@pytest.mark.parametrize("evidence", Grade)
@pytest.mark.parametrize(
    "certificate", ["passed", "weakly_specific", "failed", "not_certifiable", "pending", None]
)
def test_only_a_passed_certificate_leaves_a_map_supported(
    evidence: Grade, certificate: str | None
) -> None:
    grade = grade_of(evidence, certificate)
    assert (grade is Grade.SUPPORTED) == (evidence is Grade.SUPPORTED and certificate == "passed")
    if certificate == "failed":
        assert grade not in (Grade.SUPPORTED, Grade.WEAK)
    if evidence not in (Grade.SUPPORTED, Grade.WEAK):
        assert grade is evidence


PROMISES = re.compile(
    r"trust|verif|validat|confiden|reliab|certif|accura|\btick|\bgreen\b|percent", re.IGNORECASE
)


def sentences() -> list[str]:
    """Everything that a reader of a result is told beside the table above."""
    measures = [MEASURES[name] for name in MEASURES]
    pictures = [text for name, text in vars(picture).items() if name.isupper()]
    return [
        *(each.meaning for each in measures),
        *(each.limits for each in measures),
        *(word for each in measures for word in each.words.values()),
        *WORDS.values(),
        *(text for text in pictures if isinstance(text, str)),
        report.GUIDE,
        report.SHORTCUT,
    ]


@pytest.mark.parametrize("text", sentences())
def test_no_other_sentence_to_a_reader_promises_more(text: str) -> None:
    assert not PROMISES.search(text)


def test_every_grade_and_flag_has_its_sentence() -> None:
    assert set(STATEMENTS) == {*Grade, *Flag}


@pytest.mark.parametrize("flag", sorted(OF_THE_METHOD))
def test_a_grade_lowered_by_the_method_has_its_reason(flag: Flag) -> None:
    certificate = "failed" if flag is Flag.CERTIFICATE_FAILED else None
    for evidence in Grade:
        grade = grade_of(evidence, certificate)
        report = TrustReport(grade=grade, flags=(flag,), statements=statements(evidence, (flag,)))
        assert report.because == (None if grade is evidence else BECAUSE[flag])


@pytest.mark.parametrize("text", BECAUSE.values())
def test_no_reason_promises_more_either(text: str) -> None:
    assert not FORBIDDEN.search(text)
    assert text.isascii()


@pytest.mark.parametrize("text", [*STATEMENTS.values(), ALWAYS])
def test_no_sentence_promises_what_was_not_shown_nor_holds_a_number(text: str) -> None:
    assert not FORBIDDEN.search(text)
    assert text.isascii()  # so that the legend's letters can draw it
    assert text.endswith(".")


@pytest.mark.parametrize("grade", Grade)
def test_the_caution_is_always_said(grade: Grade) -> None:
    assert statements(grade, tuple(Flag))[-1] == ALWAYS
