"""The page on belief says of grades and flags what the reports say, and adds no promise."""

import inspect
import re
from pathlib import Path

import pytest

from service.domain.trust import ALWAYS, STATEMENTS, SUPPORTED_TO, WEAK_TO, Flag, Grade
from tests.workers.measures.test_recompute import recomputed

PAGE = (Path(__file__).parents[2] / "docs" / "trust.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)


def test_every_grade_and_flag_is_told_in_the_words_of_the_report():
    assert {code: sentence for code, sentence, _ in ROWS} == {
        str(code): sentence for code, sentence in STATEMENTS.items()
    }


def test_grades_stand_in_the_first_table_and_flags_in_the_second():
    codes = [code for code, _, _ in ROWS]
    assert set(codes[: len(Grade)]) == set(Grade)
    assert codes[len(Grade) :] == list(Flag)


@pytest.mark.parametrize(("code", "advice"), [(code, advice) for code, _, advice in ROWS])
def test_every_row_says_what_to_do(code, advice):
    assert advice.endswith("."), code


def test_the_caution_is_quoted_whole():
    quoted = re.findall(r"^> (.*)$", PAGE, re.MULTILINE)
    assert " ".join(quoted) == ALWAYS


def test_the_limits_are_those_of_the_code():
    assert f"Up to {SUPPORTED_TO:.2f} is\n  `supported`, up to {WEAK_TO:.2f} `weak`" in PAGE


def test_the_page_computes_p_as_the_test_does() -> None:
    assert inspect.getsource(recomputed).strip() in PAGE
