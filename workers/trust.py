"""The trust report of one map: its grade, flags and sentences, from what was measured."""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from service.domain.certificate import MethodRecord
from service.domain.explanation import Check
from service.domain.parity import Parity, ParityReport
from service.domain.precision import PrecisionRecord
from service.domain.trust import (
    CalibrationRef,
    CertificateRef,
    Flag,
    Grade,
    PrecisionRef,
    TrustReport,
    evidence_of,
    grade_of,
    statements,
)
from workers.methods.base import METHODS
from workers.parcels import Attribution

Known = MethodRecord | Literal["pending", "target_is_no_class", "score_is_no_logit"] | None
"""What is known of a method on a model: its record, that it is being measured or cannot be for
such a target, or nothing."""

PARTIAL: Final = "map_is_partial"
"""Reason why the certificate of a method is not that of a map that was stopped early."""

BANK: Final = "probe_bank"
INTEGRITY: Final = "integrity"

PADDED: Final = 0.25
"""Share of a map beside its image above which a reader is told."""

CERTIFICATES: Final = {
    "passed": None,
    "weakly_specific": Flag.CERTIFICATE_WEAK,
    "failed": Flag.CERTIFICATE_FAILED,
}
"""The flag of each outcome; those that are not here leave the method uncertified."""


def trust_report(
    attribution: Attribution,
    checks: Sequence[Check],
    *,
    known: Known,
    parity: ParityReport,
    duplicate: bool,
    measured: PrecisionRecord | None = None,
) -> TrustReport:
    """Return the report of a map.

    Parameters
    ----------
    checks
        What the measures said; of integrity alone where no checks were asked for.
    known
        The method's record on this model.
    parity
        Of the whole job.
    duplicate
        Whether the very same map was made of another image.
    measured
        Of the method in a lower precision, where the map was computed in that.
    """
    record = known if isinstance(known, MethodRecord) else None
    certificate = _certificate(known, partial=attribution.partial)
    evidence = _evidence(checks)
    flags = tuple(
        dict.fromkeys(
            [
                *_of_method(attribution.method, record),
                *([Flag.PARTIAL] if attribution.partial else []),
                *_of_target(attribution, parity),
                *([Flag.DUPLICATE] if duplicate else []),
                *_of_checks(checks),
            ]
        )
    )
    return TrustReport(
        grade=grade_of(evidence, certificate.outcome if certificate else None, flags),
        flags=flags,
        statements=statements(evidence, flags),
        certificate=certificate,
        calibration=None if attribution.partial else _calibration(record),
        precision=_precision(measured),
        binding=attribution.binding,
    )


def _evidence(checks: Sequence[Check]) -> Grade:
    """Return what this case's own checks say."""
    said = {check.name: check for check in checks}
    integrity, bank = said.get(INTEGRITY), said.get(BANK)
    if bank is None:
        intact = integrity is None or integrity.outcome == "pass"
        return evidence_of(intact=intact, informative=True, p=None)
    p = bank.values.get("p")
    return evidence_of(
        intact=integrity is None or integrity.outcome == "pass",
        informative="uninformative" not in bank.flags,
        p=p if isinstance(p, float) else None,
    )


def _of_method(method: str, record: MethodRecord | None) -> Iterable[Flag]:
    """Return what is known of the method, on this model and on any."""
    outcome = None if record is None else record.certificate.outcome
    flag = Flag.UNCERTIFIED if outcome is None else CERTIFICATES.get(outcome, Flag.UNCERTIFIED)
    if flag is not None:
        yield flag
    if METHODS[method].weak:
        yield Flag.WEAK_METHOD
    if record is not None and record.calibration is not None and record.calibration.weak:
        yield Flag.WEAK_FOR_THIS_MODEL


def _of_target(attribution: Attribution, parity: ParityReport) -> Iterable[Flag]:
    """Return what holds for the target, the issuing AI and what was executed."""
    target = attribution.target
    if parity.outcome is Parity.MISMATCHED:
        own = target is not None and parity.about(target.about).outcome is Parity.MISMATCHED
        yield Flag.PARITY_MISMATCH if own else Flag.PARITY_MISMATCH_ELSEWHERE
    if target is not None and target.above_threshold is False:
        yield Flag.BELOW_THRESHOLD
    if target is not None and target.saturated:
        yield Flag.SATURATED
    if attribution.executed_on == "surrogate":
        yield Flag.SURROGATE
    if attribution.padding_share > PADDED:
        yield Flag.EVIDENCE_IN_PADDING


def _of_checks(checks: Sequence[Check]) -> Iterable[Flag]:
    """Return the checks' flags that a reader is told of, in the order of the table."""
    raised = {flag for check in checks for flag in check.flags}
    return [flag for flag in Flag if flag.value in raised]


def _certificate(known: Known, *, partial: bool) -> CertificateRef | None:
    """Return the method's certificate; what whole maps passed, a part of one does not."""
    if known is None:
        return None
    if known == "pending":
        return CertificateRef(outcome="pending")
    if not isinstance(known, MethodRecord):
        return CertificateRef(outcome="not_certifiable", reason=known)
    found = known.certificate
    if partial and found.outcome == "passed":
        return CertificateRef(outcome="not_certifiable", reason=PARTIAL)
    return CertificateRef(
        id=known.id,
        outcome=found.outcome,
        reason=found.reason,
        similarities=found.similarities,
        cases=found.cases,
        seeds=found.seeds,
        synthetic=found.synthetic,
        surrogate=found.surrogate,
        protocol=found.protocol,
    )


def _precision(measured: PrecisionRecord | None) -> PrecisionRef | None:
    if measured is None or measured.worst is None:
        return None
    return PrecisionRef(
        id=measured.id,
        precision=measured.precision,
        worst=measured.worst,
        gate=measured.gate,
        maps=measured.maps,
        cases=measured.cases,
        synthetic=measured.synthetic,
        protocol=measured.protocol,
    )


def _calibration(record: MethodRecord | None) -> CalibrationRef | None:
    if record is None or record.calibration is None:
        return None
    return CalibrationRef(maps=record.calibration.maps, supported=record.calibration.supported)
