"""The attributes of every object that is made, read off objects made of drawn sources.

``python -m tests.support.attribute_tables`` writes them into the documentation. What an
attribute's value comes from is not told by anybody: sources that differ in every element
show which values are theirs.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

from tests.support.iod_tables import modules
from tests.support.phantom_dicom import encoded, of_pixels
from tests.support.series import series_sheet
from tests.support.sheets import CREATED, MODEL, blob, sheet
from tests.support.volumes import AXIAL, SAGITTAL, Series
from workers.formats.base import FORMATS
from workers.formats.sheet import Sheet
from workers.sheets import write

PAGE = Path("docs/dicom-attributes.md")
BEGIN, END = "<!-- attributes -->", "<!-- end -->"
DICOM = tuple(name for name in FORMATS if FORMATS[name].media_type == "application/dicom")
CONTENT = "ContentSequence"
"""Not gone into: its items follow templates, which the conformance statement names.

Nor are sequences that are copied whole: their items hold what the source's hold.
"""

LONGEST = 48
OTHER = "Standard Extended"
"""Attributes that no module of the object's kind has."""

PATH = tuple[str, ...]
Sample = tuple[Dataset, Sequence[Dataset]]
"""An object, and the images it was made of."""


def _item(**elements: Any) -> Dataset:
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def _coded(value: str) -> list[Dataset]:
    return [_item(CodeValue=value, CodingSchemeDesignator=f"99{value}", CodeMeaning=f"a {value}")]


def _person(value: str) -> list[Dataset]:
    return [_item(PersonIdentificationCodeSequence=_coded(value), InstitutionName="Clinic")]


ELEMENTS: Mapping[str, Sequence[Any]] = {
    "PatientName": ("Doe^Jane", "Roe^Rick"),
    "PatientID": ("A1", "B2"),
    "IssuerOfPatientID": ("North", "South"),
    "TypeOfPatientID": ("TEXT", "RFID"),
    "IssuerOfPatientIDQualifiersSequence": [
        [_item(UniversalEntityID=each, UniversalEntityIDType="DNS")] for each in ("n.org", "s.org")
    ],
    "OtherPatientIDsSequence": [
        [_item(PatientID=each, TypeOfPatientID=type_)]
        for each, type_ in (("C3", "RFID"), ("D4", "TEXT"))
    ],
    "IssuerOfAccessionNumberSequence": [
        [_item(LocalNamespaceEntityID=each)] for each in ("East", "West")
    ],
    "PatientBirthTime": ("101010", "111111"),
    "QualityControlSubject": ("YES", "NO"),
    "PatientSpeciesDescription": ("Dog", "Cat"),
    "PatientSpeciesCodeSequence": (_coded("DOG"), _coded("CAT")),
    "PatientBreedDescription": ("Beagle", "Siamese"),
    "PatientBreedCodeSequence": (_coded("BEAGLE"), _coded("SIAMESE")),
    "BreedRegistrationSequence": [
        [_item(BreedRegistrationNumber=each, BreedRegistryCodeSequence=_coded(registry))]
        for each, registry in (("R1", "KENNEL"), ("R2", "FANCIERS"))
    ],
    "PatientSexNeutered": ("ALTERED", "UNALTERED"),
    "ResponsiblePerson": ("Doe^John", "Roe^Ruth"),
    "ResponsiblePersonRole": ("OWNER", "PARENT"),
    "ResponsibleOrganization": ("Kennel", "Shelter"),
    "ClinicalTrialSponsorName": ("Payer", "Donor"),
    "ClinicalTrialProtocolID": ("P1", "P2"),
    "ClinicalTrialProtocolName": ("One", "Two"),
    "ClinicalTrialSiteID": ("T1", "T2"),
    "ClinicalTrialSiteName": ("Site", "Place"),
    "ClinicalTrialSubjectID": ("J1", "J2"),
    "ClinicalTrialTimePointID": ("W1", "W2"),
    "ClinicalTrialTimePointDescription": ("week 1", "week 2"),
    "PatientBirthDate": ("19500101", "19600202"),
    "PatientSex": ("F", "M"),
    "PatientAge": ("074Y", "064Y"),
    "PatientSize": ("1.6", "1.8"),
    "PatientWeight": ("60", "80"),
    "StudyInstanceUID": ("1.2.3", "1.2.4"),
    "SeriesInstanceUID": ("1.2.3.1", "1.2.4.1"),
    "SOPInstanceUID": ("1.2.3.1.1", "1.2.4.1.1"),
    "StudyDate": ("20240101", "20240202"),
    "StudyTime": ("101112", "131415"),
    "StudyID": ("S1", "S2"),
    "StudyDescription": ("First", "Second"),
    "AccessionNumber": ("N1", "N2"),
    "ReferringPhysicianName": ("Poe^Pat", "Loe^Lou"),
    "BodyPartExamined": ("HAND", "FOOT"),
    "TimezoneOffsetFromUTC": ("+0100", "-0500"),
    "Manufacturer": ("Maker", "Other"),
    "InstitutionName": ("Here", "There"),
    "StationName": ("ST1", "ST2"),
    "ManufacturerModelName": ("M1", "M2"),
    "DeviceSerialNumber": ("1", "2"),
    "SoftwareVersions": ("v1", "v2"),
    "ReferringPhysicianIdentificationSequence": (_person("POE"), _person("LOE")),
    "ConsultingPhysicianName": ("Coe^Cy", "Noe^Ned"),
    "ConsultingPhysicianIdentificationSequence": (_person("COE"), _person("NOE")),
    "PhysiciansOfRecord": ("Moe^Max", "Zoe^Zac"),
    "PhysiciansOfRecordIdentificationSequence": (_person("MOE"), _person("ZOE")),
    "NameOfPhysiciansReadingStudy": ("Hoe^Hal", "Woe^Wes"),
    "PhysiciansReadingStudyIdentificationSequence": (_person("HOE"), _person("WOE")),
    "RequestingServiceCodeSequence": (_coded("SURGERY"), _coded("NURSERY")),
    "ReferencedStudySequence": [
        [_item(ReferencedSOPClassUID="1.2.3", ReferencedSOPInstanceUID=each)]
        for each in ("1.2.5", "1.2.6")
    ],
    "ProcedureCodeSequence": (_coded("CHEST"), _coded("HEAD")),
    "ReasonForPerformedProcedureCodeSequence": (_coded("COUGH"), _coded("FALL")),
    "AdmissionID": ("V1", "V2"),
    "IssuerOfAdmissionIDSequence": [
        [_item(LocalNamespaceEntityID=each)] for each in ("Up", "Down")
    ],
    "ServiceEpisodeID": ("E1", "E2"),
    "IssuerOfServiceEpisodeIDSequence": [
        [_item(LocalNamespaceEntityID=each)] for each in ("In", "Out")
    ],
    "ServiceEpisodeDescription": ("ward", "day"),
    "PatientIdentityRemoved": ("YES", "NO"),
    "DeidentificationMethod": ("by hand", "by rule"),
    "DeidentificationMethodCodeSequence": (_coded("HAND"), _coded("RULE")),
    "RecognizableVisualFeatures": ("NO", "YES"),
    "LossyImageCompression": ("01", "01"),
    "LossyImageCompressionRatio": ("10", "20"),
    "LossyImageCompressionMethod": ("ISO_10918_1", "ISO_15444_1"),
    "FrameOfReferenceUID": ("1.2.3.9", "1.2.4.9"),
    "PositionReferenceIndicator": ("here", "there"),
}
SIDES: Sequence[Mapping[str, Any]] = (
    {"Laterality": "L", "PatientOrientation": ["L", "F"], "AnatomicalOrientationType": "BIPED"},
    {
        "ImageLaterality": "R",
        "PatientOrientation": ["D", "CD"],
        "AnatomicalOrientationType": "QUADRUPED",
    },
)
PLANES: Sequence[Mapping[str, Any]] = tuple(
    {
        "ImagePositionPatient": [place, 0, 0],
        "ImageOrientationPatient": orientation,
        "PixelSpacing": list(spacing),
        "SliceThickness": str(thickness),
    }
    for place, orientation, spacing, thickness in (
        (1, list(AXIAL), (0.5, 0.25), 3),
        (2, list(SAGITTAL), (0.6, 0.6), 4),
    )
)


SOURCES = frozenset({*ELEMENTS, *SIDES[0], *SIDES[1], *PLANES[0]})
BARE = {"PatientName": None, "PatientID": None, "BodyPartExamined": None}
"""A source that says no more than it must."""


@dataclass
class Attribute:
    """One attribute of one kind of object, as the samples have it."""

    path: PATH
    values: list[str] = field(default_factory=list)
    copied: list[bool] = field(default_factory=list)


def page(text: str) -> str:
    """Return the page's `text` with tables that are made anew."""
    head, _, rest = text.partition(BEGIN)
    _, _, foot = rest.partition(END)
    return f"{head}{BEGIN}\n{tables()}{END}{foot}"


def tables() -> str:
    """Return the tables of all kinds of object as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        made: dict[UID, list[Sample]] = {}
        for ds, source in _samples(Path(folder)):
            made.setdefault(ds.SOPClassUID, []).append((ds, source))
    return "".join(_table(uid, made[uid]) for uid in sorted(made, key=lambda uid: uid.name))


def _samples(folder: Path) -> Iterator[Sample]:
    """Yield objects, each with its source."""
    for number, (drawn, source) in enumerate(_sheets(folder)):
        out = folder / f"out{number}"
        out.mkdir()
        for _, file in write(drawn, DICOM, out)[0]:
            yield pydicom.dcmread(file), [pydicom.dcmread(each) for each in source]


def _sheets(folder: Path) -> Iterator[tuple[Sheet, Sequence[Path]]]:
    ramp = np.add.outer(np.arange(96), np.arange(64)).astype(np.uint16)
    full = [{each: values[n] for each, values in ELEMENTS.items()} for n in (0, 1)]
    sources: list[Mapping[str, Any]] = [BARE]
    for said, side, plane in zip(full, SIDES, PLANES, strict=True):
        sources += [said | dict(side), said | dict(side) | dict(plane)]
    for number, elements in enumerate(sources):
        file = folder / f"{number}.dcm"
        file.write_bytes(encoded(of_pixels(ramp, bits=12, **elements)))
        for signed in (True, False):
            scratch, values = folder / f"{number}{signed}", blob((6, 4), signed=signed)
            kind = {"signed": signed, "partial": not signed}
            yield sheet(file, scratch, values, **kind, **_job(number)), [file]
    series = (BARE, full[0] | dict(SIDES[0]), full[1] | dict(SIDES[1]))
    for number, said in enumerate(series):
        drawn = {key: value for key, value in said.items() if key != "SOPInstanceUID"}
        orientation = (AXIAL, AXIAL, SAGITTAL)[number]
        spacing = (2.5, 0.7, 0.7) if number else (2.5, 0.8, 0.7)
        objects = Series((4, 24, 20), orientation, spacing, elements=drawn).files()
        files = [folder / f"{number}-{place}.dcm" for place in range(len(objects))]
        for file, data in zip(files, objects, strict=True):
            file.write_bytes(data)
        for choice in ("multi_frame", "single_frame"):
            scratch = folder / f"{number}{choice}"
            yield series_sheet(files, scratch, objects=choice, **_job(number)), files


def _job(number: int) -> dict[str, Any]:
    """Return what differs from job to job, so that it does not look fixed."""
    return {
        "number": number + 101,
        "digest": f"{number:064x}",
        "created": CREATED + number * 100_000_000,
        "software": f"0.1.{number}",
        "model": MODEL.model_copy(update={"version": f"1.0.{number}"}),
        "method": f"method_{number}",
        "method_title": f"Method {number}",
    }


def _table(uid: UID, samples: Sequence[Sample]) -> str:
    """Return one kind's table, module after module in the standard's order."""
    found: dict[PATH, Attribute] = {}
    holders: Counter[PATH] = Counter()  # items that could have an attribute
    for ds, source in samples:
        _walk(ds, source, (), found, holders)
    homes = modules(uid)
    order = [*dict.fromkeys(homes.values()), OTHER]
    lines = [f"\n### {uid.name.removesuffix(' Storage')}\n", f"\nSOP class {uid}.\n\n"]
    lines.append(
        "| module | attribute | tag | VR | presence | value |\n|---|---|---|---|---|---|\n"
    )
    for each in sorted(found.values(), key=lambda each: _place(each, homes, order)):
        always = len(each.values) == holders[each.path[:-1]]
        lines.append(_row(homes.get(each.path[0], OTHER), each, always))
    return "".join(lines)


def _place(each: Attribute, homes: Mapping[str, str], order: Sequence[str]) -> tuple[int, ...]:
    tags = (tag_for_keyword(keyword) or 0 for keyword in each.path)
    return order.index(homes.get(each.path[0], OTHER)), *tags


def _walk(
    ds: Dataset,
    source: Sequence[Dataset],
    above: PATH,
    found: dict[PATH, Attribute],
    holders: Counter[PATH],
) -> None:
    holders[above] += 1
    for element in ds:
        path = (*above, element.keyword)
        entry = found.setdefault(path, Attribute(path))
        value = element.value
        if element.VR == "SQ":
            whole = any(value and value == each.get(element.keyword) for each in source)
            entry.values.append("items" if value else "")
            entry.copied.append(whole)
            for item in () if whole or element.keyword == CONTENT else value:
                _walk(item, source, path, found, holders)
        else:
            entry.values.append(_text(value))
            own = {_text(each.get(element.keyword.removeprefix("Referenced"))) for each in source}
            entry.copied.append(_text(value) in own)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if value is None:
        return ""
    several = value if isinstance(value, list | MultiValue) else [value]
    return "\\".join(f"{each:.9g}" if isinstance(each, float) else str(each) for each in several)


def _row(module: str, each: Attribute, always: bool) -> str:
    keyword = each.path[-1]
    tag = tag_for_keyword(keyword) or 0
    name = ">" * (len(each.path) - 1) + dictionary_description(tag)
    place = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    return (
        f"| {module} | {name} | {place} | {dictionary_VR(tag)} | {_presence(each, always)}"
        f" | {_origin(each)} |\n"
    )


def _presence(each: Attribute, always: bool) -> str:
    """Name how regularly it is there, in the terms of PS3.2."""
    filled = [value != "" for value in each.values]
    if not any(filled):
        return "EMPTY" if always else "ANAP, EMPTY"
    return ("ALWAYS" if all(filled) else "VNAP") if always else "ANAP"


def _origin(each: Attribute) -> str:
    filled = [n for n, value in enumerate(each.values) if value != ""]
    values = sorted({each.values[n] for n in filled})
    if not values:
        return ""
    copied = {each.values[n] for n in filled if each.copied[n]}
    if len(copied) > 1 or (copied and each.path[-1] in SOURCES):
        return "the source's" if len(copied) == len(values) else "the source's, or made"
    if values == ["items"]:
        return "sequence"
    shown = " or ".join(f"`{value}`" for value in values)
    fixed = len(values) <= 2 and len(filled) > 2 and len(shown) <= LONGEST and "bytes" not in shown
    return shown if fixed else "made"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
