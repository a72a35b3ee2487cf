"""The report of one map, from checks and records of known content."""

from typing import Any

import pytest

from service.domain.certificate import Certificate, MethodCalibration, MethodRecord, Similarity
from service.domain.explanation import Check, ExecutedOn
from service.domain.parity import Parity, ParityReport
from service.domain.trust import ALWAYS, BECAUSE, STATEMENTS, Flag, Grade, TrustReport
from tests.support.pairs import pair
from tests.support.sheets import TARGET
from workers.parcels import Attribution
from workers.trust import Known, trust_report

ALIKE = Similarity(value=0.1, low=0.0, high=0.2, pairs=96)


def check(name: str, outcome: str, *flags: str, **values: Any) -> Check:
    return Check.model_validate(
        {
            "name": name,
            "version": 1,
            "outcome": outcome,
            "flags": flags,
            "values": values,
            "meaning": "So.",
        }
    )


SOUND = (check("integrity", "pass"), check("probe_bank", "pass", p=0.01, r=0.8))


def record(outcome: str, supported: float = 0.8) -> MethodRecord:
    certificate = Certificate.model_validate(
        {
            "outcome": outcome,
            "similarities": {"all_random": ALIKE.model_dump()},
            "cases": 24,
            "seeds": 4,
            "synthetic": True,
            "protocol": 1,
        }
    )
    calibration = MethodCalibration(
        maps=40, supported=supported, r=None, p=None, reference=2.0, templates={}
    )
    return MethodRecord(
        id="a" * 64,
        method="grad_cam",
        parameters={},
        weights="b" * 64,
        runtime="torch",
        certificate=certificate,
        calibration=calibration,
    )


def report(
    checks: tuple[Check, ...] = SOUND,
    *,
    method: str = "grad_cam",
    known: Known = None,
    parity: dict[str, Parity] | None = None,
    duplicate: bool = False,
    above: bool = True,
    executed_on: ExecutedOn = "original",
    padding_share: float = 0.0,
    partial: bool = False,
    **target: Any,
) -> TrustReport:
    attribution = Attribution(
        method=method,
        version=1,
        parameters={},
        signed=True,
        target=TARGET.model_copy(update={"above_threshold": above} | target),
        values=None,
        grid=None,
        executed_on=executed_on,
        padding_share=padding_share,
        partial=partial,
    )
    return trust_report(
        attribution,
        checks,
        known=known,
        parity=ParityReport.of(pair(*each) for each in (parity or {}).items()),
        duplicate=duplicate,
    )


@pytest.mark.parametrize(("share", "flags"), [(0.2, ()), (0.3, (Flag.EVIDENCE_IN_PADDING,))])
def test_much_evidence_beside_the_image_is_told(share: float, flags: tuple[Flag, ...]) -> None:
    said = report(known=record("passed"), padding_share=share)
    assert (said.grade, said.flags) == (Grade.SUPPORTED, flags)
    assert all(STATEMENTS[flag] in said.statements for flag in flags)


def test_a_sound_map_of_a_passed_method_is_supported_and_nothing_is_flagged() -> None:
    said = report(known=record("passed"))
    assert (said.grade, said.flags) == (Grade.SUPPORTED, ())
    assert said.statements == (STATEMENTS[Grade.SUPPORTED], ALWAYS)
    assert said.certificate is not None
    assert said.certificate.id == "a" * 64
    assert said.calibration is not None
    assert (said.calibration.maps, said.calibration.supported) == (40, 0.8)


@pytest.mark.parametrize(
    ("known", "grade", "flag"),
    [
        (None, Grade.WEAK, Flag.UNCERTIFIED),
        ("pending", Grade.WEAK, Flag.UNCERTIFIED),
        (record("not_certifiable"), Grade.WEAK, Flag.UNCERTIFIED),
        (record("weakly_specific"), Grade.WEAK, Flag.CERTIFICATE_WEAK),
        (record("failed"), Grade.NOT_SUPPORTED, Flag.CERTIFICATE_FAILED),
    ],
)
def test_without_a_passed_certificate_nothing_is_supported(
    known: Known, grade: Grade, flag: Flag
) -> None:
    said = report(known=known)
    assert said.grade is grade
    assert said.flags == (flag,)
    # the evidence of the case itself is still told as it is
    assert said.statements == (STATEMENTS[flag], STATEMENTS[Grade.SUPPORTED], ALWAYS)


def test_a_certificate_that_is_being_measured_says_so() -> None:
    said = report(known="pending")
    assert said.certificate is not None
    assert said.certificate.outcome == "pending"


@pytest.mark.parametrize(
    ("checks", "grade"),
    [
        ((), Grade.NOT_CHECKED),
        ((check("integrity", "pass"),), Grade.NOT_CHECKED),
        ((check("integrity", "fail", "degenerate"),), Grade.INVALID),
        ((check("integrity", "fail", "degenerate"), SOUND[1]), Grade.INVALID),
        ((SOUND[0], check("probe_bank", "weak", p=0.1)), Grade.WEAK),
        ((SOUND[0], check("probe_bank", "fail", p=0.4)), Grade.NOT_SUPPORTED),
        ((SOUND[0], check("probe_bank", "not_applicable", "no_bank")), Grade.NOT_CHECKED),
        ((SOUND[0], check("probe_bank", "not_applicable", "too_small")), Grade.NOT_CHECKED),
        ((SOUND[0], check("probe_bank", "not_applicable", "uninformative")), Grade.UNINFORMATIVE),
    ],
)
def test_the_grade_is_that_of_the_worst_finding(checks: tuple[Check, ...], grade: Grade) -> None:
    assert report(checks, known=record("passed")).grade is grade


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"parity": {"effusion": Parity.MISMATCHED}}, Flag.PARITY_MISMATCH),
        (
            {"parity": {"effusion": Parity.MISMATCHED, "nodule": Parity.MISMATCHED}},
            Flag.PARITY_MISMATCH,
        ),
        (
            {"parity": {"effusion": Parity.MATCHED, "nodule": Parity.MISMATCHED}},
            Flag.PARITY_MISMATCH_ELSEWHERE,
        ),
        ({"parity": {"nodule": Parity.MISMATCHED}}, Flag.PARITY_MISMATCH_ELSEWHERE),
        (
            {
                "parity": {"effusion": Parity.MISMATCHED},
                "kind": "contrast",
                "key": "effusion-versus-rest",
                "of": "effusion",
            },
            Flag.PARITY_MISMATCH,
        ),
        ({"above": False}, Flag.BELOW_THRESHOLD),
        ({"executed_on": "surrogate"}, Flag.SURROGATE),
        ({"duplicate": True}, Flag.DUPLICATE),
        ({"known": record("passed", supported=0.4)}, Flag.WEAK_FOR_THIS_MODEL),
    ],
)
def test_flags_are_said_in_words(changes: dict[str, Any], flag: Flag) -> None:
    said = report(**{"known": record("passed")} | changes)
    assert said.flags == (flag,)
    assert STATEMENTS[flag] in said.statements
    assert said.grade is Grade.SUPPORTED


@pytest.mark.parametrize("method", ["guided_backprop", "deconvolution", "guided_grad_cam"])
def test_a_method_that_is_weak_evidence_is_weak_at_best_although_it_passed(method: str) -> None:
    said = report(method=method, known=record("passed"))
    assert (said.grade, said.flags) == (Grade.WEAK, (Flag.WEAK_METHOD,))
    assert said.statements[0] == STATEMENTS[Flag.WEAK_METHOD]
    assert said.because == BECAUSE[Flag.WEAK_METHOD]
    failed = report(method=method, known=record("failed"))
    assert failed.grade is Grade.NOT_SUPPORTED
    assert failed.because == BECAUSE[Flag.CERTIFICATE_FAILED]


@pytest.mark.parametrize("flag", [Flag.INCOMPLETE, Flag.TOLERANCE_MISSED])
def test_a_map_that_does_not_add_up_is_weak_at_best_and_says_why(flag: Flag) -> None:
    off = check("completeness", "fail", flag.value)
    said = report((*SOUND, off), known=record("passed"))
    assert (said.grade, said.flags) == (Grade.WEAK, (flag,))
    assert STATEMENTS[flag] in said.statements
    assert said.because == BECAUSE[flag]
    unsupported = (SOUND[0], check("probe_bank", "fail", p=0.4), off)
    assert report(unsupported, known=record("passed")).grade is Grade.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("outcome", "checks", "grade"),
    [
        ("passed", SOUND, Grade.WEAK),
        ("failed", SOUND, Grade.NOT_SUPPORTED),
        ("passed", SOUND[:1], Grade.NOT_CHECKED),
        ("passed", (SOUND[0], check("probe_bank", "fail", p=0.4)), Grade.NOT_SUPPORTED),
    ],
)
def test_a_map_that_was_stopped_early_is_weak_at_best_and_says_so(
    outcome: str, checks: tuple[Check, ...], grade: Grade
) -> None:
    said = report(checks, known=record(outcome), partial=True)
    assert said.grade is grade
    assert Flag.PARTIAL in said.flags
    assert STATEMENTS[Flag.PARTIAL] in said.statements
    assert (said.because == BECAUSE[Flag.PARTIAL]) == (grade is Grade.WEAK)


@pytest.mark.parametrize(("outcome", "told"), [("passed", "not_certifiable"), ("failed", "failed")])
def test_what_whole_maps_passed_is_not_claimed_for_a_part_of_one(outcome: str, told: str) -> None:
    said = report(known=record(outcome), partial=True)
    assert said.certificate is not None
    assert said.certificate.outcome == told
    assert (said.certificate.reason == "map_is_partial") == (outcome == "passed")
    assert said.calibration is None
    weak = report(known=record("passed", supported=0.3), partial=True)
    assert Flag.WEAK_FOR_THIS_MODEL in weak.flags


def test_flags_of_checks_come_in_the_order_of_the_table() -> None:
    checks = (
        *SOUND,
        check("template", "fail", "same_for_everybody"),
        check("expected_region", "fail", "depends_outside_expected_region"),
        check("completeness", "not_applicable", "no_change"),
    )
    assert report(checks, known=record("passed")).flags == (
        Flag.DEPENDS_OUTSIDE_EXPECTED_REGION,
        Flag.SAME_FOR_EVERYBODY,
    )
