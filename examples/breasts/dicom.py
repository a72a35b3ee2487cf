"""Drawn views as Digital Mammography, openly synthetic, the same bytes for the same name."""

import uuid
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation

from examples.breasts.drawing import VIEWS, Drawing
from examples.dicom import Photometric, uid_of
from examples.radiographs import plated, radiograph

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


def study(
    drawing: Drawing, name: str, photometric: Photometric = "MONOCHROME2"
) -> dict[str, Dataset]:
    """Return a study's views as uncompressed objects, each in a series of its own."""
    return {view: _view(drawing, view, name, photometric) for view in VIEWS}


def _view(drawing: Drawing, view: str, name: str, photometric: Photometric) -> Dataset:
    """Return one view; `name` names patient and UIDs."""
    side, projection = view.split("_")
    data = radiograph("VIEWS", name)
    data.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    data.SOPInstanceUID = uid_of(_NAMESPACE, f"instance {name} {view}")
    data.StudyInstanceUID = uid_of(_NAMESPACE, f"study {name}")
    data.SeriesInstanceUID = uid_of(_NAMESPACE, f"series {name} {view}")
    data.PatientSex = "F"
    data.SeriesNumber = VIEWS.index(view) + 1
    data.Modality, data.PresentationIntentType = "MG", "FOR PRESENTATION"
    data.BodyPartExamined = "BREAST"
    data.ImageLaterality, data.ViewPosition = side.upper(), projection.upper()
    data.PatientOrientation = FACING[view]
    data.ViewCodeSequence = [_code(*CODES[projection])]
    data.ViewCodeSequence[0].ViewModifierCodeSequence = []
    dark = photometric == "MONOCHROME1"  # what is dense has the low values
    data.PixelIntensityRelationship = "LOG"
    data.PixelIntensityRelationshipSign = 1 if dark else -1
    data.PresentationLUTShape = "INVERSE" if dark else "IDENTITY"
    return plated(data, drawing.stored[view], photometric)


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item
