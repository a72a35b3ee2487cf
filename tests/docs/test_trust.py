"""The page on belief says of grades and flags what the reports say, and adds no promise."""

import inspect
import json
import re
from copy import deepcopy
from pathlib import Path

import pytest

from benchmarks.shortcut import CONTROL, DRIVEN, FALSE_BAR, FOUND_BAR, barred
from service.domain.trust import ALWAYS, STATEMENTS, SUPPORTED_TO, WEAK_TO, Flag, Grade
from tests.workers.measures.test_recompute import recomputed
from workers.binding import REMEMBERED
from workers.certify.cases import CASES
from workers.certify.measure import HIGHEST_EFFORT
from workers.certify.verdict import MODEL, TARGET
from workers.certify.weights import SEEDS
from workers.drawing.palettes import FAINT
from workers.margins import FLAT
from workers.measures.expected_region import ExpectedRegion
from workers.measures.margins import Margins
from workers.measures.template import Template
from workers.stages.judge import SAMPLED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "trust.md").read_text()
TEXT = " ".join(PAGE.split())
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


def test_the_certificates_bands_are_those_of_the_code():
    for words, (passed, failed) in (
        ("all weights", MODEL),
        ("the head, or the class: the worse", TARGET),
    ):
        assert f"| {words} | up to {passed} | up to {failed} | over {failed} |" in PAGE
    assert (CASES, len(SEEDS)) == (24, 4)
    assert "on 24 of the package's validation cases" in TEXT
    assert "(four shuffles each)" in TEXT
    assert f"over {HIGHEST_EFFORT:,} forward passes" in TEXT


def test_the_limits_of_other_checks_are_those_of_the_code():
    assert (ExpectedRegion().share, Template().alike, SAMPLED) == (0.2, 0.9, 100)
    assert (Margins().beyond, FLAT) == (0.02, 0.01)
    assert "wider by more than 2 % of the axis" in TEXT
    assert "even to 1 % of the image's range" in TEXT
    assert "over a fifth of the distance" in TEXT
    assert "flagged from 0.9 on" in TEXT
    assert "one of a hundred other jobs" in TEXT
    assert f"the last {REMEMBERED} maps" in TEXT
    assert f"under {FAINT:.0%} of that" in TEXT.replace(" %", "%")


FOUND = json.loads((ROOT / "benchmarks" / "results" / "shortcut.json").read_text())
SHORTCUT = FOUND["models"]
MODELS = ("chest-phantom-marker", "chest-phantom-control", "chest-phantom")


def told(row):
    """Say of how many phantoms a nodule was called, and flagged."""
    called = row["called"]
    if not called:
        return "none called"
    flagged = round(called * row["flagged"])
    amount = {0: "none", called: "all"}.get(flagged, flagged)
    return f"{called} called, {amount} flagged"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("nodule, no letter", "present_without_marker"),
        ("nodule and letter", "present_with_marker"),
        ("letter alone", "absent_with_marker"),
    ],
)
def test_the_table_of_the_shortcut_is_what_was_measured(words, kind):
    rows = [SHORTCUT[model]["nodule"][kind] for model in MODELS]
    cells = [f"{words} ({rows[0]['phantoms']})", *map(told, rows)]
    assert f"| {' | '.join(cells)} |" in PAGE


def test_the_bars_of_the_shortcut_are_held_and_told():
    bars = barred(SHORTCUT)
    assert bars == FOUND["bars"]
    assert all(each["held"] for each in bars.values())
    assert (FOUND_BAR, FALSE_BAR) == (0.85, 0.08)
    assert "at least 85 %" in TEXT
    assert "at most 8 %" in TEXT


def test_a_missed_shortcut_and_a_false_alarm_each_miss_their_bar():
    missed, alarmed = deepcopy(SHORTCUT), deepcopy(SHORTCUT)
    missed[DRIVEN]["nodule"]["absent_with_marker"]["flagged"] = 0.84
    alarmed[CONTROL]["nodule"]["present_with_marker"]["flagged"] = 0.09
    alarmed["chest-phantom"]["present_without_marker"]["effusion"]["flagged"] = 0.09
    assert [name for name, each in barred(missed).items() if not each["held"]] == ["marker_driven"]
    assert [name for name, each in barred(alarmed).items() if not each["held"]] == [
        "control",
        "clean",
    ]


def test_what_was_flagged_without_a_mark_is_told():
    shares = {
        finding: max(
            SHORTCUT[model]["present_without_marker"][finding]["flagged"] for model in MODELS
        )
        for finding in SHORTCUT[MODELS[0]]["present_without_marker"]
    }
    assert {finding: share for finding, share in shares.items() if share} == {"effusion": 0.017}
    assert "but for up to 1.7 % of the effusions" in TEXT


def test_what_black_margins_do_is_what_was_measured():
    found = json.loads((ROOT / "benchmarks" / "results" / "padding.json").read_text())
    margins, ordinary = found["margins"], found["ordinary"]
    plain, tenth, quarter = (margins[each] for each in ("0.0", "0.1", "0.25"))
    count = plain["phantoms"]
    assert f"puts {count} drawn radiographs without a pneumothorax" in TEXT
    assert plain["called"] == 0
    assert tenth["called"] == quarter["called"] == count
    assert f"calls all {count} one (logits {quarter['logits'][0]:.0f} to" in TEXT
    assert f"to {tenth['logits'][1]:.0f})" in TEXT
    assert f"supported {tenth['supported']} and {quarter['supported']} times:" in TEXT
    assert plain["wide_margins"] == 0
    assert tenth["wide_margins"] == quarter["wide_margins"] == count
    said = f"All {2 * count} are flagged; of {ordinary['phantoms']} other radiographs as they are,"
    assert f"{said} {ordinary['wide_margins']} are." in TEXT


def test_the_page_computes_p_as_the_test_does() -> None:
    assert inspect.getsource(recomputed).strip() in PAGE
