"""The demo's page, from results of known content."""

from typing import Any

import pytest

from service.command.report import GUIDE, Explained, beliefs, maps
from service.domain.explanation import Check
from service.domain.figures import fall_outside, same_as_mean
from service.domain.parity import WORDS, Pair, Parity, ParityReport
from service.domain.trust import BECAUSE, Flag, Grade, TrustReport, statements
from tests.support.pairs import pair

TARGET = {
    "key": "nodule",
    "label": "Nodule",
    "index": 0,
    "asked_as": "nodule",
    "score": 15.84,
    "probability": 1.0,
    "threshold": 0.5,
    "above_threshold": True,
}


def explained(grade: Grade, *flags: Flag, parity: ParityReport | None = None) -> Explained:
    """One map whose own evidence supports it."""
    report = TrustReport(grade=grade, flags=flags, statements=statements(Grade.SUPPORTED, flags))
    bank = {
        "name": "probe_bank",
        "version": 1,
        "outcome": "pass",
        "values": {"p": 0.015625},
        "passes": 25,
        "meaning": "It is so.",
    }
    result: dict[str, Any] = {
        "method": "guided_backprop",
        "target": TARGET,
        "checks": [bank],
        "trust": report.model_dump(mode="json"),
        "artifacts": [{"name": "guided_backprop.nodule.dcm"}],
    }
    return Explained(
        study="nodule",
        model="chest-phantom",
        job={
            "parity": (parity or ParityReport()).model_dump(mode="json"),
            "results": [result],
        },
        drawn=frozenset(),
        folder="nodule",
        hits=(None,),
        marks=(None,),
        seconds=1.0,
    )


def test_a_grade_stands_with_its_own_figures() -> None:
    said = beliefs([explained(Grade.SUPPORTED)])
    assert "- **supported** (p = 0.016, 25 places hidden in turn)\n" in said


def test_a_grade_that_the_method_decided_says_so_beside_a_small_p() -> None:
    said = beliefs([explained(Grade.NOT_SUPPORTED, Flag.CERTIFICATE_FAILED)])
    assert f"- **not supported** {BECAUSE[Flag.CERTIFICATE_FAILED]} (this image alone: p = " in said


def test_a_map_is_told_with_its_model_and_its_files() -> None:
    said = beliefs([explained(Grade.SUPPORTED)])
    assert "- chest-phantom; files: `guided_backprop.nodule.dcm`\n" in said


def test_how_many_maps_of_known_cases_were_supported_is_told() -> None:
    known = explained(Grade.WEAK, Flag.WEAK_FOR_THIS_MODEL)
    known.job["results"][0]["trust"]["calibration"] = {"maps": 50, "supported": 0.44}
    assert "- Of 50 maps of known cases 44% were supported.\n" in beliefs([known])


def test_the_page_tells_from_which_p_on_a_map_has_which_grade() -> None:
    assert "| supported | p is 0.05 or less |" in GUIDE
    assert "| weak | p is up to 0.20, or " in GUIDE
    assert "| not supported | p is above 0.20, or " in GUIDE


def check(name: str, outcome: Any, **values: float) -> Check:
    return Check(name=name, version=1, outcome=outcome, values=values, meaning="So it is.")


@pytest.mark.parametrize(
    ("fall", "said"), [(-0.043, "rises by 0.04, 0.12"), (0.0, "falls by 0.00, 0.00")]
)
def test_a_score_that_does_not_fall_is_not_said_to(fall: float, said: str) -> None:
    found = fall_outside(
        [check("expected_region", "pass", fall=fall, share=2.8 * fall, share_from=0.2)]
    )
    assert found is not None
    assert f"the logit {said} of the usual distance" in found


def test_likeness_to_the_mean_map_is_told_where_it_is_flagged() -> None:
    figures = {"similarity": 0.96, "alike_from": 0.9}
    assert same_as_mean([check("template", "pass", **figures)]) is None
    said = same_as_mean([check("template", "fail", **figures)])
    assert said == "Likeness to the class's mean map 0.96 (flagged from 0.90 on)."


OTHER = pair("effusion", Parity.MISMATCHED)


@pytest.mark.parametrize(
    ("pairs", "outcome", "said"),
    [
        ([OTHER], "not_given", " Elsewhere the two differ on effusion.\n"),
        (
            [pair("nodule", Parity.MATCHED, 15.84), OTHER],
            "matched",
            (
                " Issuing system: logit 15.84; here: 15.84 (tolerance 0.02)."
                " Elsewhere the two differ on effusion.\n"
            ),
        ),
        (
            [pair("nodule", Parity.MISMATCHED, None, positive=False)],
            "mismatched",
            " Issuing system: not reported; here: reported.\n",
        ),
        (
            [pair("nodule", Parity.MISMATCHED, 15.84, positive=False)],
            "mismatched",
            " Issuing system: logit 15.84, not reported; here: 15.84, reported (tolerance 0.02).\n",
        ),
    ],
)
def test_parity_is_told_of_what_the_map_is_about(
    pairs: list[Pair], outcome: str, said: str
) -> None:
    one = explained(Grade.SUPPORTED, parity=ParityReport.of(pairs))
    assert f"- {WORDS[Parity(outcome)]}{said}" in beliefs([one])
    assert outcome in [cell.strip() for cell in maps([one]).splitlines()[-1].split("|")]
