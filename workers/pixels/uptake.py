"""Standardized uptake: what a PET image must say of the tracer, and what follows."""

import math
from datetime import datetime, timedelta
from typing import Final

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, DT, TM

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
    if str(dataset.get("Modality") or "").strip() != "PT":
        return None
    units = str(dataset.get("Units") or "").strip()
    if units == "GML":
        return 1.0 if str(dataset.get("SUVType") or "BW").strip() == "BW" else None
    corrected = {str(each).strip() for each in dataset.get("CorrectedImage") or ()}
    if units != "BQML" or not corrected >= CORRECTIONS:
        return None
    return _by_weight(dataset)


def _by_weight(dataset: Dataset) -> float | None:
    """Return weight over decayed dose."""
    weight = real(dataset, "PatientWeight")
    tracer = next(iter(dataset.get("RadiopharmaceuticalInformationSequence") or ()), Dataset())
    dose, half_life = real(tracer, "RadionuclideTotalDose"), real(tracer, "RadionuclideHalfLife")
    waited = _waited(dataset, tracer)
    if weight is None or dose is None or half_life is None or waited is None:
        return None
    if min(weight, dose, half_life) <= 0:
        return None
    scale = weight * GRAMS_PER_KILOGRAM / (dose * 2 ** (-waited / half_life))
    return scale if math.isfinite(scale) else None


def _waited(dataset: Dataset, tracer: Dataset) -> float | None:
    """Return the seconds from injection to the time that decay was corrected to."""
    reference = str(dataset.get("DecayCorrection") or "").strip()
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
        if whole := str(tracer.get("RadiopharmaceuticalStartDateTime") or "").strip():
            return DT(whole).replace(tzinfo=None)
        clock = str(tracer.get("RadiopharmaceuticalStartTime") or "").strip()
        return datetime.combine(start.date(), TM(clock)) if clock else None
    except (TypeError, ValueError):
        return None


def _moment(dataset: Dataset, event: str) -> datetime | None:
    """Return an event's date and time."""
    try:
        day = str(dataset.get(f"{event}Date") or "").strip()
        clock = str(dataset.get(f"{event}Time") or "").strip()
        return datetime.combine(DA(day), TM(clock)) if day and clock else None
    except (TypeError, ValueError):
        return None
