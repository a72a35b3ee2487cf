"""Phantoms as CT: a series of slices, or one enhanced object of all frames."""

import uuid
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from examples.dicom import finished, synthetic, uid_of
from examples.spheres.phantom import SHAPE, SPACING, Phantom
from examples.spheres.scans import Scan, supine

INTERCEPT = -1024
_NAMESPACE = uuid.UUID("5f1d7a0e-1c0e-5b58-9d3e-2f6f6a1f9b42")


def series(phantom: Phantom, name: str) -> list[Dataset]:
    """Return the axial slices from the feet up; `name` names patient and UIDs."""
    scan = supine(phantom)
    return [_slice(scan, name, number) for number in range(SHAPE[0])]


def enhanced(phantom: Phantom, name: str, scan: Callable[[Phantom], Scan] = supine) -> Dataset:
    """Return the volume as one Enhanced CT object, scanned in a way of `scans`."""
    made = scan(phantom)
    data = _common(name)
    data.PatientPosition = made.position
    data.SOPClassUID = EnhancedCTImageStorage
    data.SOPInstanceUID = uid_of(_NAMESPACE, f"enhanced {name}")
    data.NumberOfFrames = len(made.values)
    shared = Dataset()
    shared.PixelMeasuresSequence = [_measures()]
    shared.PlaneOrientationSequence = [_orientation(made)]
    shared.PixelValueTransformationSequence = [_rescale()]
    data.SharedFunctionalGroupsSequence = [shared]
    data.PerFrameFunctionalGroupsSequence = [
        _frame(made, number) for number in range(len(made.values))
    ]
    return finished(data, _stored(made))


def _slice(scan: Scan, name: str, number: int) -> Dataset:
    data = _common(name)
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = uid_of(_NAMESPACE, f"slice {number} {name}")
    data.InstanceNumber = number + 1
    for part in (_measures(), _orientation(scan), _rescale(), _position(scan, number)):
        data.update(part)
    return finished(data, _stored(scan)[number])


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


def _orientation(scan: Scan) -> Dataset:
    """Return where the columns lead, then the rows: along an axis of the patient each."""
    item = Dataset()
    item.ImageOrientationPatient = [int(each) for each in np.sign(scan.affine[:3, [2, 1]].T).flat]
    return item


def _rescale() -> Dataset:
    item = Dataset()
    item.RescaleIntercept, item.RescaleSlope, item.RescaleType = INTERCEPT, 1, "HU"
    return item


def _position(scan: Scan, number: int) -> Dataset:
    item = Dataset()
    item.ImagePositionPatient = (scan.affine[:3, 3] + number * scan.affine[:3, 0]).tolist()
    return item


def _frame(scan: Scan, number: int) -> Dataset:
    item = Dataset()
    item.PlanePositionSequence = [_position(scan, number)]
    return item


def _stored(scan: Scan) -> NDArray[np.uint16]:
    return np.clip(np.rint(scan.values - INTERCEPT), 0, 4095).astype(np.uint16)
