"""What every derived DICOM object has in common: its place beside the source.

Real files bring absent and invalid elements; copied as they are, they make
the derived object invalid. So every copied element is checked by its value
representation, repaired only where nothing can be lost, else left out, or
left empty where the standard wants it present. Text is written as UTF-8.
Nothing is ever made up.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from xxhash import xxh3_128

from service.dicom import syntaxes
from service.dicom.dataset import Parsed, parsed
from service.dicom.header import identifiers
from service.dicom.texts import texts_of
from service.dicom.uids import derived_uid, instance_uid, series_uid
from workers.formats.carried import carry, lost
from workers.formats.record import MapRecord
from workers.formats.sheet import Made, Sheet
from workers.formats.values import ANATOMY, NUMBER, ORIENTATION, are_directions, checked

UTF8 = "ISO_IR 192"
LOSSY = "01"
IMPLEMENTATION = derived_uid("implementation")
SERIES_NUMBER = 9900
"""Below our own; far above the numbers that modalities give their series."""

WITHIN = "Kept to the ultrasound regions of the image; nothing of the map outside of them."
"""Said of a map that was kept to regions, after what else is said."""

PROCESSING, ACQUISITION, SOURCE_IMAGE = (
    ("109102", "Processing Equipment"),
    ("109101", "Acquisition Equipment"),
    ("121322", "Source image for image processing operation"),
)
REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Type 2: present, empty where the source has no valid value."""

OPTIONAL = (
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "PatientBirthTime",
    "QualityControlSubject",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDescription",
    "BodyPartExamined",
    "ImageLaterality",
    ANATOMY,
    "TimezoneOffsetFromUTC",
)
"""Type 3, or 1C of animals: copied where valid."""

PLACED = (ORIENTATION, "Laterality")
"""Type 2C of images."""

_ONLY_ONE = """
ABDOMEN AORTA BLADDER BRAIN CHEST CHESTABDOMEN CHESTABDPELVIS COCCYX COLON CSPINE CTSPINE DUODENUM
ESOPHAGUS FACE GALLBLADDER HEAD HEADNECK HEART LIVER LSPINE LSSPINE MEDIASTINUM NECK NECKCHEST NOSE
PANCREAS PELVIS PENIS PROSTATE RECTUM SKULL SPINE SPLEEN SSPINE STERNUM STOMACH THYMUS THYROID
TLSPINE TONGUE TRACHEA TSPINE URETHRA UTERUS VAGINA WHOLEBODY
"""
UNPAIRED = frozenset(_ONLY_ONE.split())
"""Body parts of which there is one, by defined term (PS3.16 L)."""

DEVICE = (
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The source object without its pixels."""

    dataset: Dataset
    uids: Mapping[str, str]
    """The object's identifiers, by field of `service.dicom.header.Header`."""

    transfer_syntax_uid: str

    @classmethod
    def read(cls, file: Path) -> "Source":
        """Read the header that the decode stage kept."""
        with parsed(file, max_samples=1 << 30) as found:
            return cls.of(found)

    @classmethod
    def of(cls, found: Parsed) -> "Source":
        """Look at an object that is parsed already."""
        uids = identifiers(found.dataset, required=False)
        return cls(found.dataset, uids, found.transfer_syntax_uid)

    def text(self, keyword: str) -> str:
        """Return the element's valid text, repaired if need be, else nothing."""
        values = self.values(keyword)
        return values[0] if len(values) == 1 else ""

    def values(self, keyword: str) -> list[str]:
        """Return all values of the element if every one is valid, and their number, else none."""
        texts = checked(keyword, *self._raw(keyword))
        if keyword == ORIENTATION and texts and not are_directions(texts, self.text(ANATOMY)):
            return []
        return texts

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Return all values of the element if every one is a finite number, else none.

        Many scanners write more digits than a decimal string may have.
        """
        _, raw = self._raw(keyword)
        found = tuple(float(text) for text in raw if re.fullmatch(NUMBER, text))
        return found if len(found) == len(raw) and all(map(math.isfinite, found)) else ()

    def doubts(self) -> tuple[str, ...]:
        """Return codes of the elements that were repaired, could not be copied, or are missed."""
        found = [] if any(self._raw("PatientID")[1]) else ["missing_patient_id"]
        for keyword in (*REQUIRED, *OPTIONAL, *PLACED, *DEVICE, "FrameOfReferenceUID"):
            _, raw = self._raw(keyword)
            if any(raw) and self.values(keyword) != raw:
                found.append(
                    f"{'repaired' if self.values(keyword) else 'left_out'}_{_snake(keyword)}"
                )
        found += [f"left_out_{_snake(keyword)}" for keyword in lost(self)]
        return tuple(found)

    def within(self, item: Dataset) -> "Source":
        """Return an item of one of its sequences, to be read likewise."""
        return replace(self, dataset=item)

    def _raw(self, keyword: str) -> tuple[str, list[str]]:
        """Return the element's VR and its values as text, as they stand."""
        texts = texts_of(self.dataset, keyword)
        return str(self.dataset[keyword].VR) if texts else "", texts


def _snake(keyword: str) -> str:
    """Return a keyword as warnings write it: ``IssuerOfPatientID``, ``issuer_of_patient_id``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", "_", keyword).lower()


@dataclass(frozen=True, slots=True)
class Reference:
    """A source object, with those of its frames that something is made of."""

    sop_class_uid: str
    sop_instance_uid: str
    frames: tuple[int, ...] = ()
    """Counted from 1; empty where the object has but one."""

    def item(self) -> Dataset:
        """Return it as an item of a sequence of references (PS3.3 10.3)."""
        item = Dataset()
        item.ReferencedSOPClassUID = UID(self.sop_class_uid)
        item.ReferencedSOPInstanceUID = UID(self.sop_instance_uid)
        if self.frames:
            item.ReferencedFrameNumber = list(self.frames)
        return item


def references(
    source: Source, record: MapRecord, slices: Sequence[int] | None = None
) -> tuple[Reference, ...]:
    """Return the source objects of a map, each once.

    Parameters
    ----------
    slices
        Which slices of a volume, counted from 0; by default all.
    """
    volume = record.volume
    if volume is None:
        frame = () if record.facts.frame is None else (record.facts.frame,)
        return (Reference(source.uids["sop_class_uid"], source.uids["sop_instance_uid"], frame),)
    used = volume.slices if slices is None else [volume.slices[number] for number in slices]
    frames: dict[tuple[str, str], tuple[int, ...]] = {}
    for each in used:
        key = (each.sop_class_uid, each.sop_instance_uid)
        frames[key] = frames.get(key, ()) + (() if each.frame is None else (each.frame,))
    return tuple(Reference(*key, found) for key, found in frames.items())


def source_series(source: Source, record: MapRecord) -> str:
    """Return the UID of the series that was explained."""
    volume = record.volume
    return source.uids["series_instance_uid"] if volume is None else volume.series_instance_uid


def derive(
    source: Source,
    record: MapRecord,
    sop_class_uid: str,
    kind: str,
    *,
    title: str = "AI explanation",
    place: int = 1,
    slices: Sequence[int] | None = None,
) -> Dataset:
    """Return a derived object without pixels and without its instance UID.

    Parameters
    ----------
    source
        The object it is derived from.
    record
        What it shows.
    sop_class_uid
        What it is.
    kind
        Name of the kind of object; each has a series of its own, and so have partial maps,
        because the description is the whole series'.
    title
        How the series' description begins; the model follows.
    place
        Of the series among those of one question.
    slices
        Which slices of a volume it is made of, counted from 0; by default all.
    """
    ds = Dataset()
    ds.SpecificCharacterSet = UTF8
    ds.SOPClassUID = UID(sop_class_uid)
    ds.StudyInstanceUID = UID(source.uids["study_instance_uid"])
    _copy(source, ds)
    _describe_series(ds, record, kind)
    ds.SeriesNumber = SERIES_NUMBER + place
    model = f"{record.model.name}@{record.model.version}"
    ds.SeriesDescription = f"{record.tag}{title} {model}"[:64]
    _date(ds, record, source)
    _describe_origin(ds, source, record, references(source, record, slices))
    return ds


def finish(
    ds: Dataset, sheet: Sheet, kind: str, pixel_digest: str, *, number: int | None = None
) -> None:
    """Give `ds` its instance UID and its file meta information, and note that it was made.

    `number` is its place among several objects of one map, counted from 1.
    """
    record = sheet.record
    identity = f"{tracking(record)[0]}/{record.created}"  # of which date and time are told
    ds.SOPInstanceUID = UID(instance_uid(ds.SeriesInstanceUID, identity, pixel_digest))
    ds.InstanceNumber = record.number if number is None else number
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION)
    meta.ImplementationVersionName = f"WHYLIGHT_{record.software.replace('.', '_')}"[:16]
    ds.file_meta = meta
    sheet.made.append(Made(kind, ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID))


def digest(*parts: bytes | memoryview) -> str:
    """Name pixels by XXH3-128: fifteen times as fast as SHA-256; nobody gains by a collision."""
    state = xxh3_128()
    for part in parts:
        state.update(part)
    return state.hexdigest()


def tracking(record: MapRecord) -> tuple[str, str]:
    """Return name and UID of one explanation, by which its objects are known to belong together."""
    identity = f"{record.method}/{record.target.key}/{record.number}"
    return identity, derived_uid("tracking", record.digest, identity)


def derivation(record: MapRecord, how: str) -> str:
    """Tell method, model, target and `how` it is shown (ST, at most 1024 characters)."""
    settings = ", ".join(record.settings) or "defaults"
    made = (
        f"Attribution map of {record.method} ({settings}) for target {record.target.key}"
        f" of model {record.model.name}@{record.model.version}"
        f" (package sha256 {record.model.package})"
    )
    shown = how if record.restriction is None else f"{how} {WITHIN}"
    return f"{made[: 1022 - len(shown)]}, {shown}"


def inherit_loss(ds: Dataset, source: Source, record: MapRecord) -> None:
    """Carry on that the pixels once lost something; never claim that they did not."""
    if not record.facts.lossy:
        return
    ds.LossyImageCompression = LOSSY
    if ratios := source.values("LossyImageCompressionRatio"):
        ds.LossyImageCompressionRatio = ratios
    by_syntax = syntaxes.LOSSY_METHODS.get(syntaxes.FAMILIES[source.transfer_syntax_uid])
    if methods := source.values("LossyImageCompressionMethod") or by_syntax:
        ds.LossyImageCompressionMethod = methods


def _copy(source: Source, ds: Dataset) -> None:
    """Copy what belongs to patient and study."""
    for keyword in REQUIRED:
        setattr(ds, keyword, source.text(keyword))
    for keyword in OPTIONAL:
        if text := source.text(keyword):
            setattr(ds, keyword, text)
    ds.PatientOrientation = source.values(ORIENTATION)  # 2C; empty where unknown
    if "ImageLaterality" not in ds and ds.get("BodyPartExamined") not in UNPAIRED:
        ds.Laterality = source.text("Laterality")  # 2C, of paired parts alone
    carry(source, ds)


def _describe_series(ds: Dataset, record: MapRecord, kind: str) -> None:
    ds.Modality = "OT"
    asked = f"{record.digest}/{record.software}"  # a series is of one version of its maker
    ds.SeriesInstanceUID = UID(series_uid(asked, ds.StudyInstanceUID, f"{record.tag}{kind}"))
    ds.Manufacturer = "Whylight"
    ds.ManufacturerModelName = "Whylight"
    ds.SoftwareVersions = record.software
    ds.DeviceSerialNumber = record.software  # a program has no other number


def _date(ds: Dataset, record: MapRecord, source: Source) -> None:
    """Date the object by its job, in the source's time zone where it names one.

    A zone is never added: it would speak for the copied study time as well. The series has no
    date: a question that is asked again adds to it.
    """
    made = datetime.fromtimestamp(record.created / 1000, UTC)
    offset = source.text("TimezoneOffsetFromUTC")
    local = made.astimezone(datetime.strptime(offset, "%z").tzinfo) if offset else made
    for event in ("Content", "InstanceCreation"):
        setattr(ds, f"{event}Date", local.strftime("%Y%m%d"))
        setattr(ds, f"{event}Time", local.strftime("%H%M%S.%f"))


def _describe_origin(
    ds: Dataset, source: Source, record: MapRecord, made_of: Sequence[Reference]
) -> None:
    """Refer to the source images, and name who made them and who derived this."""
    ds.SourceImageSequence = [each.item() for each in made_of]
    for item in ds.SourceImageSequence:
        item.PurposeOfReferenceCodeSequence = [code(*SOURCE_IMAGE)]
    series = Dataset()
    series.SeriesInstanceUID = UID(source_series(source, record))
    series.ReferencedInstanceSequence = [replace(each, frames=()).item() for each in made_of]
    ds.ReferencedSeriesSequence = [series]
    ds.ContributingEquipmentSequence = [*_scanner(source), _ourselves(record)]


def _scanner(source: Source) -> list[Dataset]:
    """Return the source's equipment, if its maker is known."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code(*ACQUISITION)]
    for keyword in DEVICE:
        if values := source.values(keyword):
            setattr(item, keyword, values if len(values) > 1 else values[0])
    return [item] if "Manufacturer" in item else []


def _ourselves(record: MapRecord) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code(*PROCESSING)]
    item.Manufacturer = "Whylight"
    item.ManufacturerModelName = "Whylight"
    item.SoftwareVersions = record.software
    made = datetime.fromtimestamp(record.created / 1000, UTC)
    item.ContributionDateTime = made.strftime("%Y%m%d%H%M%S.%f+0000")
    model = f"{record.model.name}@{record.model.version}"
    item.ContributionDescription = f"Explained {model}; {record.model.weights_in_words}"[:1024]
    return item


def code(value: str, meaning: str) -> Dataset:
    """Return an item of a code sequence out of the DICOM vocabulary (DCM)."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "DCM"
    item.CodeMeaning = meaning
    return item
