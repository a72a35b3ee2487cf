"""Phantoms as CT: a series of slices, or one enhanced object of all frames."""

import uuid

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from examples.spheres.phantom import SHAPE, SPACING, Phantom

INTERCEPT = -1024
_NAMESPACE = uuid.UUID("5f1d7a0e-1c0e-5b58-9d3e-2f6f6a1f9b42")
_ORIGIN = tuple(-(count - 1) / 2 * apart for count, apart in zip(SHAPE, SPACING, strict=True))
"""Center of the first voxel from the body's, along slices, rows and columns."""


def series(phantom: Phantom, name: str) -> list[Dataset]:
    """Return the axial slices from the feet up; `name` names patient and UIDs."""
    return [_slice(phantom, name, number) for number in range(SHAPE[0])]


def enhanced(phantom: Phantom, name: str) -> Dataset:
    """Return the volume as one Enhanced CT object."""
    data = _common(name)
    data.SOPClassUID = EnhancedCTImageStorage
    data.SOPInstanceUID = _uid(f"enhanced {name}")
    data.InstanceNumber = 1
    data.NumberOfFrames = SHAPE[0]
    shared = Dataset()
    shared.PixelMeasuresSequence = [_measures()]
    shared.PlaneOrientationSequence = [_orientation()]
    shared.PixelValueTransformationSequence = [_rescale()]
    data.SharedFunctionalGroupsSequence = [shared]
    data.PerFrameFunctionalGroupsSequence = [_frame(number) for number in range(SHAPE[0])]
    return _finished(data, _stored(phantom))


def _slice(phantom: Phantom, name: str, number: int) -> Dataset:
    data = _common(name)
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = _uid(f"slice {number} {name}")
    data.InstanceNumber = number + 1
    for part in (_measures(), _orientation(), _rescale(), _position(number)):
        data.update(part)
    return _finished(data, _stored(phantom)[number])


def _common(name: str) -> Dataset:
    """Return patient, study, series and image: openly synthetic."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.PatientName, data.PatientID = "PHANTOM^SPHERES", f"SPHERES-{name}"[:64]
    data.PatientBirthDate, data.PatientSex = "19700101", "O"
    data.StudyDate, data.StudyTime = "20240102", "101500"
    data.SeriesDate, data.SeriesTime = data.StudyDate, data.StudyTime
    data.AcquisitionDate, data.AcquisitionTime = data.StudyDate, data.StudyTime
    data.ContentDate, data.ContentTime = data.StudyDate, data.StudyTime
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "1", "", ""
    data.StudyInstanceUID, data.SeriesInstanceUID = _uid(f"study {name}"), _uid(f"series {name}")
    data.FrameOfReferenceUID = _uid(f"frame of reference {name}")
    data.PositionReferenceIndicator = ""
    data.SeriesNumber, data.AcquisitionNumber = 1, 1
    data.Modality, data.BodyPartExamined, data.PatientPosition = "CT", "CHEST", "HFS"
    data.Manufacturer, data.ManufacturerModelName = "Whylight", "Sphere phantom"
    data.KVP = "120"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = SHAPE[1:]
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelRepresentation = 0
    data.WindowCenter, data.WindowWidth = "40", "800"
    return data


def _measures() -> Dataset:
    item = Dataset()
    item.PixelSpacing = list(SPACING[1:])
    item.SliceThickness = SPACING[0]
    return item


def _orientation() -> Dataset:
    item = Dataset()
    item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    return item


def _rescale() -> Dataset:
    item = Dataset()
    item.RescaleIntercept, item.RescaleSlope, item.RescaleType = INTERCEPT, 1, "HU"
    return item


def _position(number: int) -> Dataset:
    item = Dataset()
    slices, rows, columns = _ORIGIN
    item.ImagePositionPatient = [columns, rows, slices + number * SPACING[0]]
    return item


def _frame(number: int) -> Dataset:
    item = Dataset()
    item.PlanePositionSequence = [_position(number)]
    return item


def _stored(phantom: Phantom) -> NDArray[np.uint16]:
    return np.clip(np.rint(phantom.values - INTERCEPT), 0, 4095).astype(np.uint16)


def _finished(data: Dataset, stored: NDArray[np.uint16]) -> Dataset:
    data.PixelData = stored.astype("<u2").tobytes()
    data["PixelData"].VR = "OW"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta = meta
    return data


def _uid(name: str) -> UID:
    """Return the UID of a name: ``2.25.`` and a version 5 UUID (PS3.5 B.2)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")
