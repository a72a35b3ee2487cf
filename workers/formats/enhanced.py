"""Objects that highdicom builds: what it is given of the source, what is ours in the end.

highdicom takes patient and study from the source image, fails where one is
absent or not valid, and quotes names in its warnings: it is handed empty ones.
It looks up the source's kind, and knows neither retired nor private ones: it is
handed an ordinary slice, or a capture where there is no plane. It dates objects
by the clock and names a dimension organization at random. What is true takes
the place of all that, and the same job gives the same bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from highdicom import PixelMeasuresSequence
from highdicom.spatial import (
    VOLUME_INDEX_CONVENTION,
    get_normal_vector,
    get_volume_positions,
)
from highdicom.sr import DeviceObserverIdentifyingAttributes, ObserverContext
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, CTImageStorage, SecondaryCaptureImageStorage
from pydicom.valuerep import DSfloat

from service.dicom.uids import derived_uid
from service.domain.volume import Slice
from workers.formats.derived import (
    IMPLEMENTATION,
    REQUIRED,
    UTF8,
    Reference,
    Source,
    references,
    source_series,
)
from workers.formats.plane import Plane
from workers.formats.record import MapRecord
from workers.formats.scheme import plain
from workers.formats.sheet import Sheet

OF_IMAGES: Final = (
    "Modality",
    "PatientOrientation",
    "AnatomicalOrientationType",
    "Laterality",
    "ImageLaterality",
    "BodyPartExamined",
    "SourceImageSequence",
    "ReferencedSeriesSequence",
)
"""Elements that a document does not have."""

AUTHOR: Final = "Whylight^"
"""Content Creator's Name: a family name alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Originals:
    """The source images as highdicom is to see them: without patient and kind."""

    images: list[Dataset]
    names: Mapping[str, Reference]
    """What each is in truth, by the instance UID that highdicom was given."""


def slices_of(source: Source, record: MapRecord) -> tuple[Reference, ...]:
    """Return the image, or each slice of the volume: its object, and its frame of several."""
    volume = record.volume
    return references(source, record) if volume is None else tuple(map(_slice, volume.slices))


def _slice(each: Slice) -> Reference:
    frames = () if each.frame is None else (each.frame,)
    return Reference(each.sop_class_uid, each.sop_instance_uid, frames)


def originals(
    source: Source,
    ds: Dataset,
    sheet: Sheet,
    slices: Sequence[Reference],
    planes: Sequence[Plane],
) -> Originals:
    """Return images of the source, or slices of the volume, with their planes.

    Parameters
    ----------
    ds
        The derived object.
    slices
        Which, of `slices_of`.
    planes
        Where they lie in the patient; none where they do not lie there.
    """
    names = {_name(each): each for each in slices}
    images = [_image(source, ds, sheet, uid) for uid in names]
    for image, plane in zip(images, planes, strict=False):
        _place(image, plane, source)
    return Originals(images, names)


def documented(
    source: Source, ds: Dataset, sheet: Sheet, slices: Sequence[int] | None = None
) -> Originals:
    """Return each source object once, as a document refers to it; of some `slices` or of all."""
    names = {each.sop_instance_uid: each for each in references(source, sheet.record, slices)}
    return Originals([_image(source, ds, sheet, uid) for uid in names], names)


def _name(each: Reference) -> str:
    """Return a UID for one slice: its object's own, or one for its frame."""
    uid = each.sop_instance_uid
    return derived_uid("frame", uid, str(each.frames[0])) if each.frames else uid


def _image(source: Source, ds: Dataset, sheet: Sheet, uid: str) -> Dataset:
    seen = Dataset()
    for keyword in REQUIRED:
        setattr(seen, keyword, "")
    seen.SpecificCharacterSet = UTF8
    seen.StudyInstanceUID = ds.StudyInstanceUID
    seen.SOPClassUID = SecondaryCaptureImageStorage
    seen.SOPInstanceUID = UID(uid)
    seen.SeriesInstanceUID = UID(source_series(source, sheet.record))
    seen.Rows, seen.Columns = sheet.shape[-2:]
    return seen


def _place(image: Dataset, plane: Plane, source: Source) -> None:
    image.SOPClassUID = CTImageStorage
    image.FrameOfReferenceUID = plane.frame_of_reference_uid
    image.PositionReferenceIndicator = source.text("PositionReferenceIndicator")
    image.ImagePositionPatient = _decimals(plane.position)
    image.ImageOrientationPatient = _decimals(plane.orientation)
    image.PixelSpacing = _decimals(plane.spacing)
    image.SliceThickness = plane.thickness and DSfloat(plane.thickness, auto_format=True)


def _decimals(values: Iterable[float]) -> list[DSfloat]:
    """Return numbers as decimal strings, rounded where they have more than 16 characters."""
    return [DSfloat(value, auto_format=True) for value in values]


def repeat(made: Dataset, slices: Sequence[Reference], planes: Sequence[Plane]) -> list[int]:
    """Give what was made of one slice a frame for each, and return which slice each frame is.

    Frames differ in number, place and source alone. highdicom and pydicom would check every
    element of every one of them: half of the time that writing takes.
    """
    orientation = made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    directions = orientation.ImageOrientationPatient
    places = [_decimals(plane.position) for plane in planes]
    at = np.array(places, float)
    normal = get_normal_vector(directions, VOLUME_INDEX_CONVENTION)
    order = [int(each) for each in np.argsort(at @ normal)]
    (first,) = made.PerFrameFunctionalGroupsSequence
    made.PerFrameFunctionalGroupsSequence = [
        _frame(first, number, slices[each], places[each]) for number, each in enumerate(order, 1)
    ]
    made.NumberOfFrames = len(order)
    spacing, _ = get_volume_positions(places, directions, sort=False)
    if len(order) > 1 and spacing:
        made.DimensionOrganizationType = "3D"
    return order


def _frame(first: Dataset, number: int, seen: Reference, place: Sequence[DSfloat]) -> Dataset:
    """Return a frame's functional groups, laid out as those of the first."""
    frame, content, plane, derived = Dataset(), Dataset(), Dataset(), Dataset()
    content.DimensionIndexValues = [number]
    plane.ImagePositionPatient = place
    (model,) = first.DerivationImageSequence
    source = seen.item()
    for keyword in ("PurposeOfReferenceCodeSequence", "SpatialLocationsPreserved"):
        source.add(model.SourceImageSequence[0][keyword])
    derived.add(model["DerivationCodeSequence"])
    derived.SourceImageSequence = [source]
    frame.FrameContentSequence = [content]
    frame.PlanePositionSequence = [plane]
    frame.DerivationImageSequence = [derived]
    return frame


def named(ds: Dataset) -> dict[str, Any]:
    """Return what highdicom is told of every object: its series, its numbers and its maker."""
    return {
        "series_instance_uid": ds.SeriesInstanceUID,
        "series_number": ds.SeriesNumber,
        "sop_instance_uid": ds.SOPInstanceUID,
        "instance_number": ds.InstanceNumber,
        "manufacturer": ds.Manufacturer,
    }


def named_image(ds: Dataset, sheet: Sheet, planes: Sequence[Plane]) -> dict[str, Any]:
    """Return what highdicom is told of an image on the source's grid, beside its own."""
    return {
        **named(ds),
        "manufacturer_model_name": ds.ManufacturerModelName,
        "software_versions": ds.SoftwareVersions,
        "device_serial_number": ds.DeviceSerialNumber,
        "pixel_measures": _measures(planes),
        "content_description": plain(
            f"{sheet.record.mark}{sheet.record.method_title}: {sheet.record.target.label}"
        ),
        "content_creator_name": AUTHOR,
    }


def strip(ds: Dataset) -> None:
    """Take from a derived object what documents do not have."""
    for keyword in OF_IMAGES:
        ds.pop(keyword, None)


def ourselves(record: MapRecord) -> ObserverContext:
    """Return the device that observed: this program."""
    device = DeviceObserverIdentifyingAttributes(
        uid=UID(IMPLEMENTATION),
        name="Whylight",
        manufacturer_name="Whylight",
        model_name=f"Whylight {record.software}",
    )
    return ObserverContext(codes.DCM.Device, device)


def _measures(planes: Sequence[Plane]) -> PixelMeasuresSequence | None:
    """Return the pixel spacing as functional groups have it; without a plane there is none."""
    if not planes:
        return None
    return PixelMeasuresSequence(list(planes[0].spacing), planes[0].thickness)


def adopt(made: Dataset, ds: Dataset, seen: Originals) -> Dataset:
    """Return what highdicom made under our own patient, series, dates and equipment."""
    organization = UID(derived_uid("dimensions", ds.SOPInstanceUID))
    for sequence in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made.get(sequence, ()):
            item.DimensionOrganizationUID = organization
    for shared in made.get("SharedFunctionalGroupsSequence", ()):
        for item in shared.get("PixelMeasuresSequence", ()):
            item.pop("SpacingBetweenSlices", None)  # made up of a single plane and of a shear
    made.walk(partial(_correct, seen.names))
    made.update(ds)
    made.file_meta = ds.file_meta
    return made


def _correct(names: Mapping[str, Reference], item: Dataset, element: DataElement) -> None:
    """Give references their true object and kind, and where images are meant, frames."""
    if element.keyword == "ReferencedSOPInstanceUID" and element.value in names:
        name = names[element.value]
        item.ReferencedSOPClassUID = UID(name.sop_class_uid)
        element.value = UID(name.sop_instance_uid)
    if element.keyword != "SourceImageSequence" and item.get("ValueType") != "IMAGE":
        return
    for reference in element.value if element.VR == "SQ" else ():
        meant = names.get(reference.get("ReferencedSOPInstanceUID"))
        named = "ReferencedFrameNumber" in reference
        if meant is not None and meant.frames and not named:
            reference.ReferencedFrameNumber = list(meant.frames)
