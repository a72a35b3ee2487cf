"""Objects that highdicom builds: what it is given of the source, what is ours in the end.

highdicom takes patient and study from the source image and fails where one is
absent or not valid, so it is handed the cleaned copy. It dates objects by the
clock and names a dimension organization at random; ours take their place, so
that the same job gives the same bytes.
"""

from typing import Final

import numpy as np
from highdicom import PixelMeasuresSequence
from pydicom.dataset import Dataset
from pydicom.uid import UID

from service.dicom.uids import derived_uid
from workers.formats.derived import Source
from workers.formats.plane import Plane

AUTHOR: Final = "Whylight^"
"""Content Creator's Name: a family name alone."""

ORDINARY: Final = (
    "SpecificCharacterSet",
    "StudyInstanceUID",
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


def original(source: Source, ds: Dataset, shape: tuple[int, int], plane: Plane | None) -> Dataset:
    """Return the source image as highdicom is to see it.

    Parameters
    ----------
    ds
        The derived object, whose patient and study are clean.
    shape
        Rows and columns of the source image.
    plane
        Where it lies in the patient, if it lies there.
    """
    seen = Dataset()
    for keyword in ORDINARY:
        setattr(seen, keyword, ds[keyword].value)
    seen.SOPClassUID = UID(source.uids["sop_class_uid"])
    seen.SOPInstanceUID = UID(source.uids["sop_instance_uid"])
    seen.SeriesInstanceUID = UID(source.uids["series_instance_uid"])
    seen.Rows, seen.Columns = shape
    if plane is not None:
        seen.FrameOfReferenceUID = plane.frame_of_reference_uid
        seen.PositionReferenceIndicator = source.text("PositionReferenceIndicator")
        seen.ImagePositionPatient = source.values("ImagePositionPatient")
        seen.ImageOrientationPatient = source.values("ImageOrientationPatient")
        seen.PixelSpacing = source.values("PixelSpacing")
        seen.SliceThickness = source.text("SliceThickness") if plane.thickness else None
    return seen


def measures(plane: Plane | None) -> PixelMeasuresSequence | None:
    """Return the pixel spacing as functional groups have it; without a plane there is none."""
    if plane is None:
        return None
    return PixelMeasuresSequence(list(np.array(plane.spacing)), plane.thickness)


def adopt(made: Dataset, ds: Dataset) -> Dataset:
    """Return what highdicom made under our own patient, series, dates and equipment."""
    organization = UID(derived_uid("dimensions", ds.SOPInstanceUID))
    for sequence in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made.get(sequence, ()):
            item.DimensionOrganizationUID = organization
    for shared in made.get("SharedFunctionalGroupsSequence", ()):
        for item in shared.get("PixelMeasuresSequence", ()):
            item.pop("SpacingBetweenSlices", None)  # of a single plane it would be made up
    made.update(ds)
    made.file_meta = ds.file_meta
    return made
