"""Standardized uptake: what a PET image must say of the tracer, and what follows."""

import math
from datetime import datetime, timedelta
from typing import Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, DT, TM

from service.dicom.dataset import items_of, value_of
from workers.pixels.modality import real

GRAMS_PER_KILOGRAM: Final = 1000.0
CORRECTIONS: Final = frozenset({"ATTN", "DECY"})
"""Corrections without which activity is no concentration: attenuation, decay."""


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
        dated after its acquisition (then it is no start), and where values are
        neither Bq/mL nor SUV by body weight already.

    References
    ----------
    QIBA (2016). FDG-PET/CT Profile, vendor-neutral pseudo-code for SUV.
    """
    if str(value_of(dataset, "Modality") or "").strip() != "PT":
        return None
    units = str(value_of(dataset, "Units") or "").strip()
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
    if min(weight, dose, half_life) <= 0:
        return None
    left = dose * 2 ** (-waited / half_life)
    scale = weight * GRAMS_PER_KILOGRAM / left if left > 0 else math.inf
    return scale if math.isfinite(scale) else None


def _waited(dataset: Dataset, tracer: Dataset) -> float | None:
    """Return the seconds from injection to the time that decay was corrected to."""
    reference = str(value_of(dataset, "DecayCorrection") or "").strip()
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
    """Return when the tracer was given; a time without a date is of the day of the scan."""
    try:
        if whole := str(value_of(tracer, "RadiopharmaceuticalStartDateTime") or "").strip():
            return DT(whole).replace(tzinfo=None)
        clock = str(value_of(tracer, "RadiopharmaceuticalStartTime") or "").strip()
        return datetime.combine(start.date(), TM(clock)) if clock else None
    except (TypeError, ValueError):
        return None


def _moment(dataset: Dataset, event: str) -> datetime | None:
    """Return an event's date and time."""
    try:
        day = str(value_of(dataset, f"{event}Date") or "").strip()
        clock = str(value_of(dataset, f"{event}Time") or "").strip()
        return datetime.combine(DA(day), TM(clock)) if day and clock else None
    except (TypeError, ValueError):
        return None
