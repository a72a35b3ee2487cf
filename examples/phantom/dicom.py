"""Phantoms as DICOM: Computed Radiography Image Storage, 12 bits in 16.

Every identifier is derived from the case and what is written, so the same
phantom always is the same object, byte for byte.
"""

import uuid
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
)

from examples.phantom.chest import MAXIMUM, Case, Radiograph

Photometric = Literal["MONOCHROME1", "MONOCHROME2"]

_NAMESPACE = uuid.UUID("0f0c2a3e-5d0b-5f7e-9a53-6f1d3b6f4c11")
_IMPLEMENTATION = UID("2.25.20024813690547410933215894311078546377")
_DATE, _TIME = "20240102", "101500"


def dataset(
    case: Case, radiograph: Radiograph, photometric: Photometric = "MONOCHROME2"
) -> Dataset:
    """Return the radiograph as an uncompressed DICOM object.

    MONOCHROME1 stores every value mirrored within its 12 bits, so both forms
    show the same picture.
    """
    stored = radiograph.stored
    if photometric == "MONOCHROME1":
        stored = (MAXIMUM - stored).astype(np.uint16)
    data = Dataset()
    _identify(data, case, f"{photometric} {stored.shape}")
    _describe_acquisition(data, radiograph)
    _put_pixels(data, stored, photometric)
    data.file_meta = _file_meta(data)
    return data


def _identify(data: Dataset, case: Case, form: str) -> None:
    """Patient, study, series and instance: openly synthetic."""
    name = f"{case.seed} {sorted(case.findings)}{' marker' if case.marker else ''}"
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID = ComputedRadiographyImageStorage
    data.SOPInstanceUID = _uid(f"instance {name} {form}")
    data.StudyInstanceUID = _uid(f"study {name}")
    data.SeriesInstanceUID = _uid(f"series {name} {form}")
    data.PatientName = "PHANTOM^CHEST"
    data.PatientID = f"PHANTOM-{case.seed}"
    data.PatientBirthDate = "19700101"
    data.PatientSex = "O"
    data.PatientAge = "054Y"
    data.PatientComments = "Synthetic image of no person. Not for clinical use."
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = _DATE
    data.StudyTime = data.SeriesTime = data.AcquisitionTime = data.ContentTime = _TIME
    data.StudyID, data.AccessionNumber = "1", f"P{case.seed}"
    data.SeriesNumber, data.InstanceNumber, data.AcquisitionNumber = 1, 1, 1
    data.ReferringPhysicianName = ""
    data.StudyDescription = "Synthetic chest radiograph"
    data.SeriesDescription = "PA"


def _describe_acquisition(data: Dataset, radiograph: Radiograph) -> None:
    """How such a plate would have been exposed."""
    plate, (rows, columns) = radiograph.plate, radiograph.stored.shape
    data.Modality = "CR"
    data.Manufacturer = "Whylight"
    data.ManufacturerModelName = "Chest phantom"
    data.SoftwareVersions = "1"
    data.DeviceSerialNumber = "0"
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.BodyPartExamined = "CHEST"
    data.ViewPosition = "PA"
    data.PatientOrientation = ["L", "F"]
    data.KVP = "125"
    data.DistanceSourceToDetector = "1800"
    data.ExposureTime = "8"
    data.PlateType = "PHANTOM"
    spacing = 10 * plate.height / rows, 10 * plate.width / columns
    data.ImagerPixelSpacing = [f"{each:.5f}" for each in spacing]
    data.LossyImageCompression = "00"
    data.BurnedInAnnotation = "NO"
    data.QualityControlImage = "NO"


def _put_pixels(data: Dataset, stored: NDArray[np.uint16], photometric: Photometric) -> None:
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = photometric
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelRepresentation = 0
    low, high = np.percentile(stored, [0.5, 99.5])
    data.WindowCenter, data.WindowWidth = f"{(low + high) / 2:.1f}", f"{high - low:.1f}"
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "0", "1", "US"
    data.PixelData = stored.astype("<u2").tobytes()
    data["PixelData"].VR = "OW"


def _file_meta(data: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION
    meta.ImplementationVersionName = "WHYLIGHT_PHANTOM"
    return meta


def _uid(name: str) -> UID:
    """Return the UID of a name: ``2.25.`` and a version 5 UUID (PS3.5 B.2)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")
