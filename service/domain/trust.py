"""How far one map may be believed: a grade, flags and sentences from one fixed table.

No sentence is built from values of the study; numbers stand beside it.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal, Self

from service.domain.canonical import digest_of
from service.domain.certificate import Certified, Compared, Similarity
from service.domain.precision import Precision
from service.domain.value import Name, Sha256, Value

SUPPORTED_TO: Final = 0.05
WEAK_TO: Final = 0.20


class Grade(StrEnum):
    """The one word for a map."""

    NOT_CHECKED = "not_checked"
    INVALID = "invalid"
    NOT_SUPPORTED = "not_supported"
    WEAK = "weak"
    SUPPORTED = "supported"
    UNINFORMATIVE = "uninformative"


class Flag(StrEnum):
    """What a reader should know beside the grade."""

    CERTIFICATE_FAILED = "certificate_failed"
    CERTIFICATE_WEAK = "certificate_weak"
    UNCERTIFIED = "uncertified"
    WEAK_METHOD = "weak_method"
    PARTIAL = "partial"
    PARITY_MISMATCH = "parity_mismatch"
    PARITY_MISMATCH_ELSEWHERE = "parity_mismatch_elsewhere"
    BELOW_THRESHOLD = "below_threshold"
    SATURATED = "saturated"
    SURROGATE = "surrogate"
    DUPLICATE = "duplicate"
    NOT_REPEATABLE = "not_repeatable"
    DEPENDS_OUTSIDE_EXPECTED_REGION = "depends_outside_expected_region"
    WIDE_MARGINS = "wide_margins"
    NOT_TARGET_SPECIFIC = "not_target_specific"
    SAME_FOR_EVERYBODY = "same_for_everybody"
    WEAK_FOR_THIS_MODEL = "weak_for_this_model"
    SAME_KIND_OF_EVIDENCE = "same_kind_of_evidence"
    FEW_LEVELS = "few_levels"
    INCOMPLETE = "incomplete"
    TOLERANCE_MISSED = "tolerance_missed"
    EVIDENCE_ELSEWHERE = "evidence_elsewhere"
    EVIDENCE_IN_PADDING = "evidence_in_padding"


OF_THE_METHOD: Final = frozenset(
    {Flag.CERTIFICATE_FAILED, Flag.CERTIFICATE_WEAK, Flag.UNCERTIFIED, Flag.WEAK_METHOD}
)
"""Flags that lower the grade of a map whose own evidence says more."""

BECAUSE: Final = MappingProxyType(
    {
        Flag.CERTIFICATE_FAILED: "because its method failed on known cases",
        Flag.CERTIFICATE_WEAK: "because its method was not clear on known cases",
        Flag.UNCERTIFIED: "because its method was not measured on known cases",
        Flag.WEAK_METHOD: "because its method is weak evidence on any model",
        Flag.PARTIAL: "because its method was stopped early",
        Flag.INCOMPLETE: "because its values do not add up",
        Flag.TOLERANCE_MISSED: "because its sum missed the tolerance",
    }
)
"""Why a grade is lower than the map's own evidence, to stand right after it."""

UNFULFILLED: Final = frozenset({Flag.PARTIAL, Flag.INCOMPLETE, Flag.TOLERANCE_MISSED})
"""Flags of a map that is not what its method promises; nothing in it is well supported."""

ALWAYS: Final = (
    "This describes the model, not the patient. It does not show that the finding is"
    " present or that the model is right."
)

STATEMENTS: Final = MappingProxyType(
    {
        Grade.NOT_CHECKED: "Whether the score depends on the places marked was not checked.",
        Grade.INVALID: "The map is constant or holds values that are not finite: do not read it.",
        Grade.NOT_SUPPORTED: (
            "Hiding the places marked by this map changed the model's score no more than"
            " hiding the same shape elsewhere."
        ),
        Grade.WEAK: (
            "Hiding the places marked by this map changed the model's score a little more than"
            " hiding the same shape elsewhere; chance can do as much."
        ),
        Grade.SUPPORTED: (
            "Hiding the places marked by this map changed the model's score more than hiding"
            " the same shape elsewhere."
        ),
        Grade.UNINFORMATIVE: (
            "Hiding any one place lowered the model's score no more than hiding another:"
            " nothing can be said of this map."
        ),
        Flag.CERTIFICATE_FAILED: (
            "On known cases this method's maps of this model hardly changed when its weights or"
            " the class were exchanged: they do not show what this model has learned."
        ),
        Flag.CERTIFICATE_WEAK: (
            "On known cases it was not clear that this method's maps of this model change enough"
            " with its weights and the class: they may say little about this class in particular."
        ),
        Flag.UNCERTIFIED: (
            "Whether this method's maps follow the weights of this model was not measured: they"
            " count as weak at best."
        ),
        Flag.WEAK_METHOD: (
            "This method draws much the same edges of an image whatever the model has learned:"
            " its maps count as weak at best."
        ),
        Flag.PARTIAL: (
            "The method was stopped early: the map is of a part of its work, and a whole one may"
            " look different; what is known of the method is of whole maps. It counts as weak at"
            " best."
        ),
        Flag.PARITY_MISMATCH: (
            "The model says something else here than the issuing system reported: this may not"
            " be the explanation of that result."
        ),
        Flag.PARITY_MISMATCH_ELSEWHERE: (
            "Of another class or value the model says something else than the issuing system"
            " reported: it may not be the same model, or not the same image."
        ),
        Flag.BELOW_THRESHOLD: (
            "The score is below the model's threshold: the model did not report this finding."
        ),
        Flag.SATURATED: (
            "The probability explained is so near none or certainty that it hardly changes with"
            " what the model sees: an empty or faint map does not mean that there is no evidence."
        ),
        Flag.SURROGATE: "It was computed on a substitute of the model, not on the model itself.",
        Flag.DUPLICATE: (
            "The very same map was made of a different image: one of the two is not what it seems."
        ),
        Flag.NOT_REPEATABLE: "Running the method again on the same image gave another map.",
        Flag.DEPENDS_OUTSIDE_EXPECTED_REGION: (
            "Hiding what lies outside the declared region lowered the score; the model may be"
            " using something there."
        ),
        Flag.WIDE_MARGINS: (
            "The image has wider uniform margins than any of the model's known cases: the score,"
            " and so the map, may come from them."
        ),
        Flag.NOT_TARGET_SPECIFIC: (
            "Hiding the places marked changed the score of another class at least as clearly."
        ),
        Flag.SAME_FOR_EVERYBODY: (
            "The map is much like this method's mean map of this class: it says little about this"
            " image in particular."
        ),
        Flag.WEAK_FOR_THIS_MODEL: (
            "On known cases most maps that this method made of this model were not supported."
        ),
        Flag.SAME_KIND_OF_EVIDENCE: (
            "The method hides places too: agreement is consistency, not independent evidence."
        ),
        Flag.FEW_LEVELS: "The model's score moves in few steps, so small effects are lost.",
        Flag.INCOMPLETE: (
            "The map's values do not add up to the change in score that they should share out:"
            " it counts as weak at best."
        ),
        Flag.TOLERANCE_MISSED: (
            "The map's sum is farther from the change in score than the tolerance that was asked"
            " for: it counts as weak at best."
        ),
        Flag.EVIDENCE_ELSEWHERE: (
            "The method finds no evidence in this image: all of it lies in the other images that"
            " the model saw with it."
        ),
        Flag.EVIDENCE_IN_PADDING: (
            "Much of the map lies beside the image, in what was put around it to fill the model's"
            " input: the model may be using the edge, and what is shown is only the rest."
        ),
    }
)
"""By code; the one place where these words stand."""


def evidence_of(*, intact: bool, informative: bool, p: float | None) -> Grade:
    """Return what this case's own checks say of a map.

    Parameters
    ----------
    intact
        Whether the map is finite and not constant.
    informative
        Whether hiding a place moved the score beyond rounding; counts only
        where the map was compared at all.
    p
        Share of the map's own transforms that agree with the model at least as
        well, in (0, 1]; `None` when it was not measured.
    """
    if not intact:
        return Grade.INVALID
    if not informative:
        return Grade.UNINFORMATIVE
    if p is None:
        return Grade.NOT_CHECKED
    if not p <= WEAK_TO:  # so that a NaN supports nothing
        return Grade.NOT_SUPPORTED
    return Grade.WEAK if p > SUPPORTED_TO else Grade.SUPPORTED


def grade_of(evidence: Grade, certificate: str | None, flags: Iterable[Flag] = ()) -> Grade:
    """Return the grade: the worse of this case's evidence and the method's certificate.

    A map of a method that is weak evidence on any model is weak at best, and so is one
    that was stopped early, or that does not add up, of a method that promises it.

    Parameters
    ----------
    certificate
        The certificate's outcome; `None` when there is none. Only ``passed``
        leaves ``supported`` as it is, and ``failed`` leaves nothing.
    flags
        Of the map; those of its method count, and of what that did not fulfill.
    """
    if evidence not in (Grade.SUPPORTED, Grade.WEAK):
        return evidence
    if certificate == "failed":
        return Grade.NOT_SUPPORTED
    sound = certificate == "passed" and (OF_THE_METHOD | UNFULFILLED).isdisjoint(flags)
    return evidence if sound else Grade.WEAK


def statements(evidence: Grade, flags: Iterable[Flag] = ()) -> tuple[str, ...]:
    """Return the sentences for this case's evidence and its flags, the caution last.

    What is known of the method comes first, because it can outweigh the case.
    """
    said = tuple(flags)
    before = [STATEMENTS[flag] for flag in said if flag in OF_THE_METHOD]
    after = [STATEMENTS[flag] for flag in said if flag not in OF_THE_METHOD]
    return (*before, STATEMENTS[evidence], *after, ALWAYS)


class CertificateRef(Value):
    """The method's certificate on this model, by reference, with its numbers."""

    id: Sha256 | None = None
    """Digest of all that it depends on; the catalog shows the record under it."""

    outcome: Certified | Literal["pending"]
    """``pending`` while it is still being measured."""

    reason: Name | None = None
    similarities: dict[Compared, Similarity] = {}
    cases: int = 0
    seeds: int = 0
    """Shuffles of the weights for each case."""

    synthetic: bool = False
    surrogate: bool = False
    """Whether its maps are those of the network that stands in for the model."""

    protocol: int = 0


class CalibrationRef(Value):
    """How the method fares on the model's validation cases."""

    maps: int
    supported: float


class PrecisionRef(Value):
    """What was measured of maps in the precision that this one was computed in."""

    id: Sha256
    """Digest of all that it depends on; the catalog shows the record under it."""

    precision: Precision
    worst: float
    """Lowest correlation of a map with the one in float64, on known cases."""

    gate: float
    """What every map had to reach."""

    maps: int
    cases: int
    synthetic: bool
    protocol: int


class Binding(Value):
    """What belongs together: one digest over map, image, model, request and attempt."""

    map: Sha256
    """Of the raw values: float32, little-endian, in C order, after their shape."""

    input: Sha256
    """Of the model's input, likewise."""

    source: Sha256
    """Of the DICOM object as it was sent; of a series, or of two objects, see `source_digest`."""

    weights: Sha256 | None
    """`None` of a model that runs elsewhere."""

    precision: Precision
    """What the map was computed in."""

    request: Sha256
    """Of the canonical request."""

    job: str
    attempt: int
    digest: Sha256
    """SHA-256 of the canonical JSON of all fields above."""

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """Return the binding of everything but the digest, which is taken of it."""
        return cls(**fields, digest=digest_of(fields))

    @property
    def holds(self) -> bool:
        """Whether the digest is the one of the other fields."""
        return self.digest == digest_of(self.model_dump(exclude={"digest"}))


def source_digest(objects: Sequence[Sha256], beside: Sha256 | None = None) -> Sha256:
    """Return what a binding says of its source: the object's digest, or one of all of a series.

    The latter is the SHA-256 of the canonical JSON list of the objects' digests in sorted order.
    Where the target was made of another object `beside` the image (the one that it is held
    against, or the DICOM segmentation of its region), it is that of the list of both digests.
    """
    own = objects[0] if len(objects) == 1 else digest_of(sorted(objects))
    return own if beside is None else digest_of([own, beside])


class Probes(Value):
    """The places that were hidden, so that anyone can compute `r` and `p` of a map again."""

    cells: tuple[tuple[tuple[float, float], ...], ...]
    """For each cell and axis its lower and upper wall, as shares of the model input's edges."""

    lattices: tuple[int, ...]
    """How many of the cells, in their order, stand side by side: correlated apart."""

    softness: tuple[float, ...]
    """Width of the soft walls of each lattice, as a share of the edge."""

    infill: str
    """What a hidden place is filled with."""

    extent: tuple[int, ...]
    """Spatial shape of the model's input."""

    map_to_input: tuple[tuple[float, ...], ...]
    """Native cells of the map to pixels of the model's input, homogeneous."""

    side: int
    """Points along each axis of the square grid on which the map is transformed."""

    shifts: int
    """Wrap-around shifts along each axis, in equal steps."""

    drops: tuple[float, ...]
    """Fall of the score (logits) when each cell is hidden."""


class TrustReport(Value):
    """How far one map may be believed; its checks stand beside it."""

    schema_number: int = 1
    grade: Grade
    flags: tuple[Flag, ...] = ()
    statements: tuple[str, ...]
    certificate: CertificateRef | None = None
    """`None` where no map was made, or nothing was checked."""

    calibration: CalibrationRef | None = None
    precision: PrecisionRef | None = None
    """`None` for a map that was computed in float32."""

    binding: Binding | None = None

    @property
    def because(self) -> str | None:
        """Why the grade is lower than this case's own evidence; `None` where it is not."""
        if STATEMENTS[self.grade] in self.statements:
            return None
        return next((BECAUSE[flag] for flag in self.flags if flag in BECAUSE), None)
