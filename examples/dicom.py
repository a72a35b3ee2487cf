"""What drawn images have in common as DICOM: openly synthetic, the same bytes for the same name."""

import uuid
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

Photometric = Literal["MONOCHROME1", "MONOCHROME2"]

HIGHEST: Final = 4095
"""Of 12 bits."""


def uid_of(namespace: uuid.UUID, name: str) -> UID:
    """Return the UID of a name: ``2.25.`` and a version 5 UUID (PS3.5 B.2)."""
    return UID(f"2.25.{uuid.uuid5(namespace, name).int}")


def synthetic(kind: str, name: str) -> Dataset:
    """Return the head of an object of no person: patient, times, and numbers of a first image.

    Parameters
    ----------
    kind
        What is drawn; with `name` it names the patient.
    """
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.PatientName, data.PatientID = f"PHANTOM^{kind}", f"{kind}-{name}"[:64]
    data.PatientBirthDate, data.PatientSex = "19700101", "O"
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = "20240102"
    data.StudyTime = data.SeriesTime = data.AcquisitionTime = data.ContentTime = "101500"
    data.StudyID, data.ReferringPhysicianName = "1", ""
    data.SeriesNumber = data.InstanceNumber = data.AcquisitionNumber = 1
    data.Manufacturer = "Whylight"
    return data


def mirrored(stored: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return values of 12 bits as MONOCHROME1 stores the picture that they are in MONOCHROME2."""
    return (HIGHEST - stored).astype(np.uint16)


def finished(
    data: Dataset, stored: NDArray[np.uint16], photometric: Photometric = "MONOCHROME2"
) -> Dataset:
    """Put pixels of 12 bits into a headed object, and what a file of it begins with; return it.

    Parameters
    ----------
    stored
        Shape ``(rows, columns)``, or ``(frames, rows, columns)``.
    """
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, photometric
    data.Rows, data.Columns = stored.shape[-2:]
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelRepresentation = 0
    data.PixelData = stored.astype("<u2").tobytes()
    data["PixelData"].VR = "OW"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta = meta
    return data
