"""Values of elements as the standard wants them: what is valid, and what can be repaired."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from pydicom.datadict import dictionary_VM

from service.dicom.texts import UNKNOWN

ANATOMY, ORIENTATION = "AnatomicalOrientationType", "PatientOrientation"
QUADRUPED: Final = "QUADRUPED"

_PART = rf"[^\\\x00-\x1f\x7f=^{UNKNOWN}]*"
_NAME = rf"(?=[^=]{{0,64}}(=|$)){_PART}(\^{_PART}){{0,4}}"
"""Five parts at most, and 64 characters, in each of a name's three writings."""

NUMBER = r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?"
_FORMS: dict[str, str] = {
    "AS": r"\d{3}[DWMY]",
    "CS": r"[A-Z0-9 _]{1,16}",
    "DA": r"\d{8}",
    "DT": r"\d{4}(\d\d){0,5}(\.\d{1,6})?([+-]\d{4})?",
    "DS": rf"(?=.{{1,16}}$){NUMBER}",
    "LO": rf"[^\\\x00-\x1f\x7f{UNKNOWN}]{{1,64}}",
    "PN": rf"{_NAME}(={_NAME}){{0,2}}",
    "SH": rf"[^\\\x00-\x1f\x7f{UNKNOWN}]{{1,16}}",
    "ST": rf"[^\x00-\x08\x0b\x0e-\x1f\x7f{UNKNOWN}]{{1,1024}}",
    "TM": r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?",
    "UC": rf"[^\\\x00-\x1f\x7f{UNKNOWN}]+",
    "UT": rf"[^\x00-\x1f\x7f{UNKNOWN}]+",
    "UI": r"(?=.{1,64}$)[012](\.(0|[1-9]\d*))+",
}
_TERMS: dict[str, str] = {
    "PatientSex": "[MFO]",
    "Laterality": "[LR]",
    "ImageLaterality": "[LRUB]",
    "TimezoneOffsetFromUTC": r"(?!-0000)(-(0\d|1[01])[0-5]\d|-1200|\+(0\d|1[0-3])[0-5]\d|\+1400)",
    "PatientIdentityRemoved": "YES|NO",
    "PatientSexNeutered": "ALTERED|UNALTERED",
    "UniversalEntityIDType": "DNS|EUI64|ISO|URI|UUID|X400|X500",
    ANATOMY: f"BIPED|{QUADRUPED}",
    "QualityControlSubject": "YES|NO",
    "RecognizableVisualFeatures": "YES|NO",
}
_REPAIRS: dict[str, Callable[[str], str]] = {
    "AS": lambda text: f"{int(text):03d}Y" if re.fullmatch(r"\d{1,3}", text) else text,
    "CS": str.upper,
    "DA": lambda text: re.sub(r"^(\d{4})\.(\d\d)\.(\d\d)$", r"\1\2\3", text),  # before 1993
    "TM": lambda text: re.sub(r"^(\d\d):(\d\d):(\d\d)", r"\1\2\3", text),  # before 1993
}
_OPPOSITES: Mapping[str, Sequence[tuple[str, str]]] = {
    "BIPED": (("A", "P"), ("R", "L"), ("H", "F")),
    QUADRUPED: (
        ("LE", "RT"),
        ("M", "L"),
        ("D", "V"),
        ("D", "PA"),
        ("D", "PL"),
        ("CR", "CD"),
        ("R", "CD"),
        ("PR", "DI"),
    ),
}
"""Directions of the body by two that exclude each other (PS3.3 C.7.6.1.1.1)."""


def checked(keyword: str, vr: str, raw: Sequence[str]) -> list[str]:
    """Return an element's values, repaired if need be, if every one is valid, and their number.

    Else none.
    """
    texts = [_REPAIRS.get(vr, str)(text) for text in raw]
    form = _TERMS.get(keyword, _FORMS.get(vr, r"(?!)"))
    fits = dictionary_VM(keyword) in ("1-n", str(len(texts)))
    valid = fits and all(each and re.fullmatch(form, each) for each in texts)
    return texts if valid and (vr != "DA" or all(map(_is_day, texts))) else []


def _is_day(text: str) -> bool:
    """Tell a day of the calendar, of any year: those that stand for an unknown date count, too."""
    try:
        datetime.strptime(text, "%Y%m%d")  # noqa: DTZ007 - a day has no zone
    except ValueError:
        return False
    return True


def are_directions(values: Sequence[str], anatomy: str) -> bool:
    """Tell whether Patient Orientation's two values are where rows and columns can lead.

    Parameters
    ----------
    values
        Of a row, of a column: the principal direction, then what refines it.
    anatomy
        Anatomical Orientation Type; ``BIPED`` where it lacks.
    """
    opposites = _OPPOSITES.get(anatomy, _OPPOSITES["BIPED"])
    known = "|".join(sorted({each for pair in opposites for each in pair}, key=len, reverse=True))
    if len({*values}) != len(values) or not all(
        re.fullmatch(rf"({known}){{1,3}}", each) for each in values
    ):
        return False
    row, column = ({*re.findall(known, each)} for each in values)
    along = [row | column] if len(row) == len(column) == 1 else []  # they are at right angles
    return not any({*pair} <= said for said in (row, column, *along) for pair in opposites)
