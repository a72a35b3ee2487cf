"""Standardized uptake: what a PET image must say of the tracer, and what follows."""

import re
from datetime import datetime, time, timedelta, tzinfo
from typing import Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, DT, TM

from service.dicom.dataset import items_of, value_of
from workers.pixels.modality import real

GRAMS_PER_KILOGRAM: Final = 1000.0
CORRECTIONS: Final = frozenset({"ATTN", "DECY"})
"""Corrections without which activity is no concentration: attenuation, decay."""

WEIGHTS: Final = (0.3, 700.0)
"""Weights that patients have, in kg."""

DOSES: Final = (1e6, 1e10)
"""Doses that are given for a PET scan, in Bq; those in MBq or mCi lie far below."""

SHORT_LIVED: Final = (70.6, 76.0, 122.2, 458.2, 580.2, 597.9)
"""Half-lives in s, under `SHORT`, that PET uses: O-14, Rb-82, O-15, K-38, Cu-62 and N-13."""

SHORT: Final = 1000.0
"""A half-life below it, in s, is one of `SHORT_LIVED`, or was given in minutes or hours."""

SAME: Final = 0.02
"""How far tables differ in a half-life, as a share: those of Rb-82 by 1.8 %."""

MOST_HALVES: Final = 10.0
"""Half-lives after which nothing is left to scan."""

OFFSET: Final = r"[-+](0\d|1[0-4])[0-5]\d"
"""Of a time zone from UTC, hours and minutes (PS3.5 6.2, DT)."""

CLOCK: Final = r"\d{4}(\d\d(\.\d{1,6})?)?"
"""A time no less exact than to the minute: one of hours alone could be off by half of a dose."""


def uptake_scale(dataset: Dataset) -> float | None:
    r"""Return the factor from modality values to SUV by body weight, in g/mL.

    .. math:: \frac{w}{D\, 2^{-t / T}}

    with the patient's weight `w` in g, the injected dose `D` in Bq, its
    half-life `T`, and `t` from injection to the time that decay was corrected
    to: the start of the series (`START`) or the injection itself (`ADMIN`).

    Returns
    -------
    float | None
        `None` where an element lacks or is not valid, where the series is
        dated after its acquisition (then it is no start), where only one of
        injection and series says its offset from UTC, and where values are
        neither Bq/mL nor SUV by body weight already; nor where dose, half-life or
        weight cannot be in Bq, s and kg.

    References
    ----------
    QIBA (2016). FDG-PET/CT Profile, vendor-neutral pseudo-code for SUV.
    """
    if _text(dataset, "Modality") != "PT":
        return None
    units = _text(dataset, "Units")
    if units == "GML":
        return 1.0 if str(value_of(dataset, "SUVType") or "BW").strip() == "BW" else None
    several = value_of(dataset, "CorrectedImage")
    several = several if isinstance(several, MultiValue) else ()
    corrected = {str(each).strip() for each in several}
    if units != "BQML" or not corrected >= CORRECTIONS:
        return None
    return _by_weight(dataset)


def _by_weight(dataset: Dataset) -> float | None:
    """Return weight over decayed dose."""
    weight = real(dataset, "PatientWeight")
    tracer = next(iter(items_of(dataset, "RadiopharmaceuticalInformationSequence")), Dataset())
    dose, half_life = real(tracer, "RadionuclideTotalDose"), real(tracer, "RadionuclideHalfLife")
    waited = _waited(dataset, tracer)
    if weight is None or dose is None or half_life is None or waited is None:
        return None
    if not (_within(weight, WEIGHTS) and _within(dose, DOSES) and _is_nuclides(half_life)):
        return None
    if waited > MOST_HALVES * half_life:
        return None
    return weight * GRAMS_PER_KILOGRAM / (dose * 2 ** (-waited / half_life))


def _within(value: float, allowed: tuple[float, float]) -> bool:
    return allowed[0] <= value <= allowed[1]


def _is_nuclides(half_life: float) -> bool:
    """Tell whether a nuclide that PET uses may have this half-life, in s."""
    near = (abs(half_life - each) <= SAME * each for each in SHORT_LIVED)
    return half_life >= SHORT or any(near)


def _waited(dataset: Dataset, tracer: Dataset) -> float | None:
    """Return the seconds from injection to the time that decay was corrected to."""
    reference = _text(dataset, "DecayCorrection")
    if reference == "ADMIN":
        return 0.0
    start, acquired = _moment(dataset, "Series"), _moment(dataset, "Acquisition")
    if reference != "START" or start is None or acquired is None or start > acquired:
        return None
    injected = _injected(tracer, start)
    if injected is None or not timedelta(0) <= start - injected <= timedelta(days=1):
        return None
    return (start - injected).total_seconds()


def _injected(tracer: Dataset, start: datetime) -> datetime | None:
    """Return when the tracer was given, with an offset from UTC where `start` has one.

    A time without a date is of the day of the scan, one without an offset of its
    zone; an offset that cannot be held against the scan's gives nothing.
    """
    try:
        if whole := _text(tracer, "RadiopharmaceuticalStartDateTime"):
            given = DT(whole) if re.fullmatch(rf"\d{{8}}{CLOCK}({OFFSET})?", whole) else None
            if given is None or given.tzinfo is None:
                return given and given.replace(tzinfo=start.tzinfo)
            return given if start.tzinfo is not None else None
        clock = _clock(tracer, "RadiopharmaceuticalStartTime")
        return None if clock is None else datetime.combine(start.date(), clock, start.tzinfo)
    except (TypeError, ValueError):
        return None


def _moment(dataset: Dataset, event: str) -> datetime | None:
    """Return an event's date and time, with the offset from UTC where the data set says it."""
    try:
        day, clock = _text(dataset, f"{event}Date"), _clock(dataset, f"{event}Time")
        return datetime.combine(DA(day), clock, _zone(dataset)) if day and clock else None
    except (TypeError, ValueError):
        return None


def _clock(dataset: Dataset, keyword: str) -> time | None:
    text = _text(dataset, keyword)
    return TM(text) if re.fullmatch(CLOCK, text) else None


def _zone(dataset: Dataset) -> tzinfo | None:
    """Return the time zone of what has no offset of its own; `None` where it is not known."""
    offset = _text(dataset, "TimezoneOffsetFromUTC")
    return datetime.strptime(offset, "%z").tzinfo if re.fullmatch(OFFSET, offset) else None


def _text(dataset: Dataset, keyword: str) -> str:
    return str(value_of(dataset, keyword) or "").strip()
