"""Phantoms as CT: a series of slices, or one enhanced object of all frames."""

import uuid

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from examples.dicom import finished, synthetic, uid_of
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
    data.SOPInstanceUID = uid_of(_NAMESPACE, f"enhanced {name}")
    data.NumberOfFrames = SHAPE[0]
    shared = Dataset()
    shared.PixelMeasuresSequence = [_measures()]
    shared.PlaneOrientationSequence = [_orientation()]
    shared.PixelValueTransformationSequence = [_rescale()]
    data.SharedFunctionalGroupsSequence = [shared]
    data.PerFrameFunctionalGroupsSequence = [_frame(number) for number in range(SHAPE[0])]
    return finished(data, _stored(phantom))


def _slice(phantom: Phantom, name: str, number: int) -> Dataset:
    data = _common(name)
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = uid_of(_NAMESPACE, f"slice {number} {name}")
    data.InstanceNumber = number + 1
    for part in (_measures(), _orientation(), _rescale(), _position(number)):
        data.update(part)
    return finished(data, _stored(phantom)[number])


def _common(name: str) -> Dataset:
    """Return patient, study and series, and what all images have in common."""
    data = synthetic("SPHERES", name)
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.AccessionNumber = ""
    data.StudyInstanceUID = uid_of(_NAMESPACE, f"study {name}")
    data.SeriesInstanceUID = uid_of(_NAMESPACE, f"series {name}")
    data.FrameOfReferenceUID = uid_of(_NAMESPACE, f"frame of reference {name}")
    data.PositionReferenceIndicator = ""
    data.Modality, data.BodyPartExamined, data.PatientPosition = "CT", "CHEST", "HFS"
    data.ManufacturerModelName = "Sphere phantom"
    data.KVP = "120"
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
