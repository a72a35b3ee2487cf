"""The demo's page, from results of known content."""

from typing import Any

from service.command.report import Explained, beliefs
from service.domain.trust import BECAUSE, Flag, Grade, TrustReport, statements


def explained(grade: Grade, *flags: Flag) -> Explained:
    """One map whose own evidence supports it."""
    report = TrustReport(grade=grade, flags=flags, statements=statements(Grade.SUPPORTED, flags))
    bank = {
        "name": "probe_bank",
        "outcome": "pass",
        "values": {"p": 0.015625},
        "passes": 25,
        "meaning": "It is so.",
    }
    result: dict[str, Any] = {
        "method": "guided_backprop",
        "target": {"key": "nodule", "label": "Nodule"},
        "checks": [bank],
        "trust": report.model_dump(mode="json"),
    }
    return Explained(
        study="nodule",
        model="chest-phantom",
        job={"parity": {"outcome": "not_given", "pairs": []}, "results": [result]},
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
