"""Pictures as Computed Radiography, openly synthetic, the same bytes for the same name."""

import uuid

from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage

from examples.dicom import Photometric, uid_of
from examples.planted.pictures import Picture
from examples.radiographs import plated, radiograph

_NAMESPACE = uuid.UUID("6ab4b1f2-7f39-5b0e-9c84-2d3a91d0c7e5")


def plate(
    picture: Picture, name: str, body_part: str, photometric: Photometric = "MONOCHROME2"
) -> Dataset:
    """Return a picture as an uncompressed object; `name` names patient and UIDs."""
    data = radiograph("PLANTED", name)
    data.SOPClassUID = ComputedRadiographyImageStorage
    data.SOPInstanceUID = uid_of(_NAMESPACE, f"instance {name}")
    data.StudyInstanceUID = uid_of(_NAMESPACE, f"study {name}")
    data.SeriesInstanceUID = uid_of(_NAMESPACE, f"series {name}")
    data.PatientSex = str(picture.values.get("sex", "O"))
    if "weight" in picture.values:
        data.PatientWeight = picture.values["weight"]
    data.Modality, data.BodyPartExamined, data.ViewPosition = "CR", body_part, "PA"
    data.PatientOrientation = ["L", "F"]
    data.PlateType = "PHANTOM"
    return plated(data, picture.stored, photometric)
