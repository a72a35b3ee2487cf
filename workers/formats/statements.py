"""What a structured report says of one map: numbers and words, each under a code."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Final

import numpy as np
from highdicom.sr import CodedConcept, Measurement, QualitativeEvaluation
from pydicom.sr.codedict import codes

from service.domain.boxes import EDGES
from service.domain.figures import in_windows
from service.domain.resolved import ResolvedTarget
from service.domain.target import LOGIT
from service.domain.trust import ALWAYS
from workers.formats.plane import Plane
from workers.formats.record import MapRecord
from workers.formats.scheme import own
from workers.formats.sheet import Sheet

PIXELS: Final = CodedConcept("{pixels}", "UCUM", "pixels")
SQUARE_MILLIMETERS: Final = CodedConcept("mm2", "UCUM", "square millimeter")
CUBIC_MILLIMETERS: Final = CodedConcept("mm3", "UCUM", "cubic millimeter")
NO_UNITS: Final = codes.UCUM.NoUnits
MILLIMETERS: Final = CodedConcept("mm", "UCUM", "millimeter")
SLICED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "first_slice": "First slice by position, from 0,",
        "end_slice": "End of the slices by position, from 0,",
    }
)
"""What those edges are called that readers count from 1."""

CHECKED: Final[Mapping[tuple[str, str], tuple[str, str]]] = MappingProxyType(
    {
        ("probe_bank", "r"): ("probe_bank_r", "Correlation of map and drops of hidden places"),
        ("probe_bank", "p"): ("probe_bank_p", "Share of moved maps that agree at least as well"),
        ("expected_region", "fall"): (
            "outside_fall",
            "Fall of the logit with all outside the region hidden",
        ),
        ("target_specific", "best_other_r"): (
            "other_class_r",
            "The same of the best other class",
        ),
        ("template", "similarity"): ("mean_map_alike", "Similarity with the class's mean map"),
        ("completeness", "relative_residual"): (
            "completeness",
            "Share of the score's change that the map lacks",
        ),
        ("repeat", "relative_difference"): ("repeat_differs", "Difference of a second run"),
    }
)
"""Code value and meaning by check and the name of its number."""

RESTRICTED: Final = (
    "Peak, extent and share are of the image's ultrasound regions alone; what the map held"
    " outside of them is left out."
)
"""Of a map that was kept to regions."""

CERTIFIED: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "all_random": ("cert_all_random", "Likeness of maps with all weights shuffled"),
        "head_random": ("cert_head_random", "Likeness of maps with the last layer shuffled"),
        "other_class": ("cert_other_class", "Likeness of maps of another class"),
        "other_patient": ("cert_other_case", "Likeness of maps of other cases"),
    }
)
"""Code value and meaning by what the method's certificate compares."""


def measurements(sheet: Sheet, planes: Sequence[Plane]) -> list[Measurement]:
    """Return all numbers: the score, the map's own, the checks', the certificate's."""
    record = sheet.record
    said = (_score(record), _beside(record), _map(sheet), _region(sheet, planes), _checks(record))
    found = chain.from_iterable(said)
    return [Measurement(name, value, unit) for name, value, unit in found if math.isfinite(value)]


def evaluations(record: MapRecord) -> list[QualitativeEvaluation]:
    """Return the words: grade, certificate, parity, and every flag."""
    trust = record.trust
    certificate = "none" if trust.certificate is None else trust.certificate.outcome
    said = [
        (own("trust_grade", "Grade of the attribution map"), _word(trust.grade)),
        (own("certificate", "Certificate of the method on the model"), _word(certificate)),
        (own("parity", "Agreement with the issuing system"), _word(record.parity.outcome)),
        *((own("caution", "Caution about the map"), _word(each)) for each in trust.flags),
    ]
    return [QualitativeEvaluation(name, value) for name, value in said]


def sentences(record: MapRecord) -> str:
    """Return what a reader should be told, out of the fixed table."""
    said = list(record.trust.statements)
    said += [] if record.restriction is None else [RESTRICTED]
    said += [] if record.target.windows is None else [in_windows(record.target.windows)]
    return " ".join(said if ALWAYS in said else (*said, ALWAYS))


Number = tuple[CodedConcept, float, CodedConcept]


def _score(record: MapRecord) -> Iterator[Number]:
    target = record.target
    if target.probability is not None:
        yield own("probability", "Probability that the model gives"), target.probability, NO_UNITS
    unit = NO_UNITS if target.unit is None else CodedConcept(target.unit, "UCUM", target.unit)
    if target.value is not None:
        yield own("value", "Value that the model gives"), target.value, unit
    if target.reference is not None:
        yield own("reference", "Value that the score is counted from"), target.reference, unit
    name = "logit" if target.quantity == LOGIT else "score"
    yield own(name, f"Score that is explained ({target.quantity})"), target.score, unit
    yield from _box(target)
    if target.overlap is not None:
        yield (
            own("box_overlap", "Overlap with the box that was asked for"),
            target.overlap,
            NO_UNITS,
        )
    if target.threshold is not None:
        yield own("threshold", "Operating threshold of the model"), target.threshold, NO_UNITS


def _box(target: ResolvedTarget) -> Iterator[Number]:
    """Yield the edges of a detection's box, and of a volume where that lies in the patient."""
    if target.box is None:
        return
    for edge, place in zip(EDGES[len(target.box)], target.box, strict=True):
        said = f"{SLICED.get(edge, edge.capitalize())} of the box that is explained"
        yield own(f"box_{edge}", said), place, PIXELS
    if target.patient is None:
        return
    for axis, place in zip("xyz", target.patient.center, strict=True):
        said = f"Center of the box in the patient, {axis}"
        yield own(f"box_center_{axis}", said), place, MILLIMETERS
    for axis, length in zip(("slices", "rows", "columns"), target.patient.size, strict=True):
        yield own(f"box_{axis}", f"Length of the box along the {axis}"), length, MILLIMETERS


def _beside(record: MapRecord) -> Iterator[Number]:
    """Yield what each value beside the image adds, and what the image adds among several."""
    for number, each in enumerate(record.variables):
        yield own(f"beside_{number}", f"Relevance of {each.label}"), each.relevance, NO_UNITS
    if record.view is not None and record.view.share is not None:
        of = "view" if record.instance is None else "image"
        name = own("view_share", f"Share of this {of} in the evidence of all {of}s")
        yield name, record.view.share, NO_UNITS
    if record.instance is not None:
        name = own("instance_fall", "Fall of the score without this image of the bag")
        yield name, record.instance.relevance, NO_UNITS


def _map(sheet: Sheet) -> Iterator[Number]:
    """Peak and cell size; a map that says nothing in the image has no peak."""
    if sheet.peak is not None:
        place, peak = sheet.peak
        yield own("peak_relevance", "Largest relevance of a map cell in the image"), peak, NO_UNITS
        for axis, index in zip(sheet.record.axes, place, strict=True):
            said = "by position" if axis == "slice" else "in the source image"
            name = own(f"peak_{axis}", f"{axis.capitalize()} of the peak {said}, from 0")
            yield name, index, PIXELS
        yield from _peak_image(sheet)
    if sheet.record.padding_share:
        beside = own("padding_share", "Share of evidence in padding around the image")
        yield beside, sheet.record.padding_share, NO_UNITS
    if sheet.seen_share < 1:
        given = own("seen_share", "Share of the image that the model was given")
        yield given, sheet.seen_share, NO_UNITS
    if sheet.record.restriction is not None:
        outside = own("outside_share", "Share of evidence outside the ultrasound regions")
        yield outside, sheet.record.restriction.outside_share, NO_UNITS
    for axis, cells in zip(sheet.record.axes, _edges(sheet), strict=True):
        yield own(f"cell_{axis}s", f"Source {axis}s that a map cell covers"), cells, PIXELS


def _peak_image(sheet: Sheet) -> Iterator[Number]:
    """Yield the Instance Number by which people find the slice of the peak, where it has one."""
    peak = sheet.peak_image
    if peak is not None and peak.instance_number is not None:
        name = own("peak_instance_no", "Instance Number of the source image of the peak")
        yield name, peak.instance_number, NO_UNITS


def _edges(sheet: Sheet) -> tuple[float, ...]:
    """Return how far a cell reaches along each of the source's axes, in its pixels."""
    return tuple(map(float, np.abs(sheet.grid.affine[:-1, :-1]).max(axis=1)))


def _region(sheet: Sheet, planes: Sequence[Plane]) -> Iterator[Number]:
    """Extent and mass of the salient region, 0 where there is none."""
    region = sheet.region
    if region is None:
        return
    pixels = region.pixels
    yield own("region_from", "Relevance from which a pixel is salient"), region.threshold, NO_UNITS
    yield own("region_pixels", "Extent of the salient region"), pixels, PIXELS
    yield own("region_mass", "Share of positive relevance inside it"), region.mass, NO_UNITS
    volume = sheet.record.volume
    if volume is not None:
        cubic = pixels * abs(float(np.linalg.det(volume.matrix[:3, :3])))
        yield own("region_volume", "Volume of the salient region"), cubic, CUBIC_MILLIMETERS
    elif planes:
        area = pixels * planes[0].spacing[0] * planes[0].spacing[1]
        yield own("region_area", "Area of the salient region"), area, SQUARE_MILLIMETERS


def _checks(record: MapRecord) -> Iterator[Number]:
    """Numbers of this case's checks, then of the method on known cases."""
    for check in record.checks:
        for name, value in check.values.items():
            if (check.name, name) in CHECKED and isinstance(value, float):
                yield own(*CHECKED[check.name, name]), value, NO_UNITS
    certificate, calibration = record.trust.certificate, record.trust.calibration
    for compared, similarity in certificate.similarities.items() if certificate else ():
        yield own(*CERTIFIED[compared]), similarity.value, NO_UNITS
    if calibration is not None:
        share = own("known_supported", "Share of maps of known cases that are supported")
        yield share, calibration.supported, NO_UNITS


def _word(value: str) -> CodedConcept:
    """Return a word of ours as a code."""
    return own(str(value), value.replace("_", " "))
