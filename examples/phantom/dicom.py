"""Phantoms as DICOM: Computed Radiography Image Storage, 12 bits in 16.

Every identifier is derived from the case and what is written, so the same
phantom always is the same object, byte for byte.
"""

import uuid

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID, ComputedRadiographyImageStorage

from examples.dicom import Photometric, finished, mirrored, synthetic, uid_of
from examples.phantom.chest import Case, Radiograph

_NAMESPACE = uuid.UUID("0f0c2a3e-5d0b-5f7e-9a53-6f1d3b6f4c11")
_IMPLEMENTATION = UID("2.25.20024813690547410933215894311078546377")


def dataset(
    case: Case, radiograph: Radiograph, photometric: Photometric = "MONOCHROME2"
) -> Dataset:
    """Return the radiograph as an uncompressed DICOM object.

    MONOCHROME1 stores every value mirrored within its 12 bits, so both forms
    show the same picture.
    """
    stored = radiograph.stored
    if photometric == "MONOCHROME1":
        stored = mirrored(stored)
    data = _identified(case, f"{photometric} {stored.shape}")
    _describe_acquisition(data, radiograph)
    _show(data, stored)
    finished(data, stored, photometric)
    data.file_meta.ImplementationClassUID = _IMPLEMENTATION
    data.file_meta.ImplementationVersionName = "WHYLIGHT_PHANTOM"
    return data


def _identified(case: Case, form: str) -> Dataset:
    """Return patient, study, series and instance: openly synthetic."""
    data = synthetic("CHEST", str(case.seed))
    name = f"{case.seed} {sorted(case.findings)}{' marker' if case.marker else ''}"
    data.SOPClassUID = ComputedRadiographyImageStorage
    data.SOPInstanceUID = uid_of(_NAMESPACE, f"instance {name} {form}")
    data.StudyInstanceUID = uid_of(_NAMESPACE, f"study {name}")
    data.SeriesInstanceUID = uid_of(_NAMESPACE, f"series {name} {form}")
    data.PatientID = f"PHANTOM-{case.seed}"
    data.PatientAge = "054Y"
    data.PatientComments = "Synthetic image of no person. Not for clinical use."
    data.AccessionNumber = f"P{case.seed}"
    data.StudyDescription = "Synthetic chest radiograph"
    data.SeriesDescription = "PA"
    return data


def _describe_acquisition(data: Dataset, radiograph: Radiograph) -> None:
    """How such a plate would have been exposed."""
    plate, (rows, columns) = radiograph.plate, radiograph.stored.shape
    data.Modality = "CR"
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


def _show(data: Dataset, stored: NDArray[np.uint16]) -> None:
    low, high = np.percentile(stored, [0.5, 99.5])
    data.WindowCenter, data.WindowWidth = f"{(low + high) / 2:.1f}", f"{high - low:.1f}"
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "0", "1", "US"
