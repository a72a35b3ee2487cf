"""Objects that highdicom builds: what it is given of the source, what is ours in the end.

highdicom takes patient and study from the source image, fails where one is
absent or not valid, and quotes names in its warnings: it is handed empty ones.
It looks up the source's kind, and knows neither retired nor private ones: it is
handed an ordinary slice, or a capture where there is no plane. It dates objects
by the clock and names a dimension organization at random. What is true takes
the place of all that, and the same job gives the same bytes.
"""

from collections.abc import Iterable
from typing import Final

from highdicom import PixelMeasuresSequence
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, SecondaryCaptureImageStorage
from pydicom.valuerep import DSfloat

from service.dicom.uids import derived_uid
from workers.formats.derived import REQUIRED, UTF8, Source
from workers.formats.plane import Plane

AUTHOR: Final = "Whylight^"
"""Content Creator's Name: a family name alone."""


def original(source: Source, ds: Dataset, shape: tuple[int, int], plane: Plane | None) -> Dataset:
    """Return the source image as highdicom is to see it: without patient and kind.

    Parameters
    ----------
    ds
        The derived object.
    shape
        Rows and columns of the source image.
    plane
        Where it lies in the patient, if it lies there.
    """
    seen = Dataset()
    for keyword in REQUIRED:
        setattr(seen, keyword, "")
    seen.SpecificCharacterSet = UTF8
    seen.StudyInstanceUID = ds.StudyInstanceUID
    seen.SOPClassUID = CTImageStorage if plane else SecondaryCaptureImageStorage
    seen.SOPInstanceUID = UID(source.uids["sop_instance_uid"])
    seen.SeriesInstanceUID = UID(source.uids["series_instance_uid"])
    seen.Rows, seen.Columns = shape
    if plane is not None:
        seen.FrameOfReferenceUID = plane.frame_of_reference_uid
        seen.PositionReferenceIndicator = source.text("PositionReferenceIndicator")
        seen.ImagePositionPatient = _decimals(plane.position)
        seen.ImageOrientationPatient = _decimals(plane.orientation)
        seen.PixelSpacing = _decimals(plane.spacing)
        seen.SliceThickness = plane.thickness and DSfloat(plane.thickness, auto_format=True)
    return seen


def _decimals(values: Iterable[float]) -> list[DSfloat]:
    """Return numbers as decimal strings, rounded where they have more than 16 characters."""
    return [DSfloat(value, auto_format=True) for value in values]


def measures(plane: Plane | None) -> PixelMeasuresSequence | None:
    """Return the pixel spacing as functional groups have it; without a plane there is none."""
    if plane is None:
        return None
    return PixelMeasuresSequence(list(plane.spacing), plane.thickness)


def adopt(made: Dataset, ds: Dataset, source: Source, frame: int | None) -> Dataset:
    """Return what highdicom made under our own patient, series, dates and equipment.

    Parameters
    ----------
    frame
        The source's frame that is referred to, where it has several.
    """
    organization = UID(derived_uid("dimensions", ds.SOPInstanceUID))
    for sequence in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made.get(sequence, ()):
            item.DimensionOrganizationUID = organization
    for shared in made.get("SharedFunctionalGroupsSequence", ()):
        for item in shared.get("PixelMeasuresSequence", ()):
            item.pop("SpacingBetweenSlices", None)  # of a single plane it would be made up
    _name_source(made, source, frame)
    made.update(ds)
    made.file_meta = ds.file_meta
    return made


def _name_source(made: Dataset, source: Source, frame: int | None) -> None:
    """Name the source's true kind wherever it is referred to, and its frame where images are."""

    def correct(item: Dataset, element: DataElement) -> None:
        of_source = item.get("ReferencedSOPInstanceUID") == source.uids["sop_instance_uid"]
        if element.keyword == "ReferencedSOPClassUID" and of_source:
            element.value = UID(source.uids["sop_class_uid"])
        seen = element.keyword == "SourceImageSequence" or item.get("ValueType") == "IMAGE"
        if frame is not None and seen and element.VR == "SQ":
            for reference in element.value:
                if reference.get("ReferencedSOPInstanceUID") == source.uids["sop_instance_uid"]:
                    reference.ReferencedFrameNumber = frame

    made.walk(correct)
