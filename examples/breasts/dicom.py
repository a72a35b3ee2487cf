"""Drawn views as Digital Mammography, openly synthetic, the same bytes for the same name."""

import uuid
from typing import Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from examples.breasts.drawing import VIEWS, Drawing

_NAMESPACE = uuid.UUID("0c7f6f0e-8d5e-5a3b-9a57-54a2a2a9d1b3")

CODES: Final = {"cc": ("399162004", "cranio-caudal"), "mlo": ("399368009", "medio-lateral oblique")}
"""SNOMED CT codes of CID 4014, by projection."""

FACING: Final = {
    "l_cc": ["A", "R"],
    "l_mlo": ["A", "FR"],
    "r_cc": ["P", "L"],
    "r_mlo": ["P", "FL"],
}
"""Patient Orientation of each view."""


def study(drawing: Drawing, name: str) -> dict[str, Dataset]:
    """Return a study's views as uncompressed objects, each in a series of its own."""
    return {view: _view(drawing, view, name) for view in VIEWS}


def _view(drawing: Drawing, view: str, name: str) -> Dataset:
    """Return one view; `name` names patient and UIDs."""
    side, projection = view.split("_")
    stored = drawing.stored[view]
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    data.SOPInstanceUID = _uid(f"instance {name} {view}")
    data.StudyInstanceUID = _uid(f"study {name}")
    data.SeriesInstanceUID = _uid(f"series {name} {view}")
    data.PatientName, data.PatientID = "PHANTOM^VIEWS", f"VIEWS-{name}"[:64]
    data.PatientBirthDate, data.PatientSex = "19700101", "F"
    data.PatientComments = "Synthetic image of no person. Not for clinical use."
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = "20240102"
    data.StudyTime = data.SeriesTime = data.AcquisitionTime = data.ContentTime = "101500"
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "1", "1", ""
    data.SeriesNumber = VIEWS.index(view) + 1
    data.InstanceNumber = data.AcquisitionNumber = 1
    data.Modality, data.PresentationIntentType = "MG", "FOR PRESENTATION"
    data.Manufacturer, data.BodyPartExamined = "Whylight", "BREAST"
    data.ImageLaterality, data.ViewPosition = side.upper(), projection.upper()
    data.PatientOrientation = FACING[view]
    data.ViewCodeSequence = [_code(*CODES[projection])]
    data.ViewCodeSequence[0].ViewModifierCodeSequence = []
    data.ImagerPixelSpacing = [1.5, 1.5]
    data.PixelIntensityRelationship, data.PixelIntensityRelationshipSign = "LOG", -1
    data.LossyImageCompression, data.BurnedInAnnotation = "00", "NO"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelRepresentation = 0
    data.WindowCenter, data.WindowWidth = "1400", "2800"
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "0", "1", "US"
    data.PresentationLUTShape = "IDENTITY"
    data.PixelData = stored.astype("<u2").tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return data


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _uid(name: str) -> UID:
    """Return the UID of a name: ``2.25.`` and a version 5 UUID (PS3.5 B.2)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")
