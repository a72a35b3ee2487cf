"""Pictures as Computed Radiography, openly synthetic, the same bytes for the same name."""

import uuid

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from examples.planted.pictures import Picture

_NAMESPACE = uuid.UUID("6ab4b1f2-7f39-5b0e-9c84-2d3a91d0c7e5")


def plate(picture: Picture, name: str, body_part: str) -> Dataset:
    """Return a picture as an uncompressed object; `name` names patient and UIDs."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.SOPClassUID = ComputedRadiographyImageStorage
    data.SOPInstanceUID = _uid(f"instance {name}")
    data.StudyInstanceUID = _uid(f"study {name}")
    data.SeriesInstanceUID = _uid(f"series {name}")
    data.PatientName, data.PatientID = "PHANTOM^PLANTED", f"PLANTED-{name}"[:64]
    data.PatientBirthDate, data.PatientSex = "19700101", str(picture.values.get("sex", "O"))
    if "weight" in picture.values:
        data.PatientWeight = picture.values["weight"]
    data.PatientComments = "Synthetic image of no person. Not for clinical use."
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = "20240102"
    data.StudyTime = data.SeriesTime = data.AcquisitionTime = data.ContentTime = "101500"
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "1", "1", ""
    data.SeriesNumber = data.InstanceNumber = data.AcquisitionNumber = 1
    data.Modality, data.BodyPartExamined, data.ViewPosition = "CR", body_part, "PA"
    data.Manufacturer, data.PatientOrientation = "Whylight", ["L", "F"]
    data.PlateType = "PHANTOM"
    data.ImagerPixelSpacing = [1.5, 1.5]
    data.LossyImageCompression, data.BurnedInAnnotation = "00", "NO"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = picture.stored.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelRepresentation = 0
    data.WindowCenter, data.WindowWidth = "1400", "2800"
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "0", "1", "US"
    data.PixelData = picture.stored.astype("<u2").tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return data


def _uid(name: str) -> UID:
    """Return the UID of a name: ``2.25.`` and a version 5 UUID (PS3.5 B.2)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")
