"""dicom3tools' validator, and what must be forgiven it because the source is to blame."""

import re
import subprocess
from pathlib import Path

import pydicom

from service.dicom.header import read_header
from tests.support import corpus

IODS = {
    "dicom_ko": "KeyObjectSelectionDocument",
    "dicom_pm": "ParametricMap",
    "dicom_sc": "SCImage",
    "dicom_sc_word": "SCImage",
    "dicom_seg": "Segmentation",
    "dicom_sr": "ComprehensiveSR",
}
"""What the validator calls each format's objects."""

OF_VOLUMES = {
    "dicom_sc": "MultiframeTrueColorSCImage",
    "dicom_sc_word": "MultiframeGrayscaleWordSCImage",
}
"""What it calls those that are of another kind when they are of a volume."""

SUMMARY = "Error - Dicom dataset contains invalid data values for Value Representations"
"""What the validator says once more after any invalid value."""

UID = r"[012](\.(0|[1-9]\d*))+"

EARLY = re.compile(r" DA \[\d+\] = <0\d{7}> - Character invalid")
OF_A_FRAME = (
    "Error - Shall not be present for Referenced SOP Class that is not multi-frame"
    " - attribute <ReferencedFrameNumber>"
)
"""What it says where a source has several frames although its class has one."""


def complaints(format_: str, file: Path) -> list[str]:
    """Return the errors of an object, which must be recognized as what it is."""
    found = subprocess.run(["dciodvfy", file], capture_output=True, timeout=300, check=False)
    lines = (found.stdout + found.stderr).decode(errors="replace").splitlines()
    assert {IODS[format_], OF_VOLUMES.get(format_)} & {*lines}, lines
    return [line for line in lines if line.startswith("Error")]


def ours(found: list[str], *sources: Path) -> list[str]:
    """Return the errors that are not of the sources' own ill-formed UIDs or of their class.

    Nor of a text that is too long in bytes alone: the standard counts characters (PS3.5 6.2);
    nor of a year before 1000, which stands for a date that was removed.
    """
    named = {OF_A_FRAME, *(uid for each in sources for uid in ill_formed_uids(each))}
    rest = [
        line
        for line in found
        if not (_fits(line) or EARLY.search(line) or any(each in line for each in named))
    ]
    return [line for line in rest if line != SUMMARY or len(rest) == len(found)]


def _fits(line: str) -> bool:
    """Tell whether a value that is said to be too long has as many characters as it may."""
    told = re.search(r"<(.*)> - Length invalid for this VR = \d+, expected <= (\d+)", line)
    return told is not None and len(told[1]) <= int(told[2])


def ill_formed_uids(path: Path) -> set[str]:
    """UIDs by which the source is wrongly, but truly named: a reference must repeat them.

    A frame of reference that is ill-formed is left out, but for one of root 0: scanners have
    written such, and maps must lie in it.
    """
    header = read_header(path, max_samples=corpus.LIMIT)
    uids = {header.study_instance_uid, header.series_instance_uid, header.sop_instance_uid}
    place = str(pydicom.dcmread(path, force=True).get("FrameOfReferenceUID", ""))
    wrong = {uid for uid in uids - {""} if not re.fullmatch(UID, uid) or uid[0] == "0"}
    return wrong | ({place} if place[:1] == "0" and re.fullmatch(UID, place) else set())
