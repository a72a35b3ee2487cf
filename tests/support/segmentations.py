"""DICOM segmentations made by highdicom, as another program would send them."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from tests.support.phantom_dicom import encoded

LABELS = ("Lesion", "Organ", "Other")


def readable(dataset: Dataset) -> Dataset:
    """Return a data set as it is read from a file, with what highdicom asks of its sources."""
    read = dcmread(io.BytesIO(encoded(dataset)))
    empty = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID")
    for keyword in (*empty, "AccessionNumber", "ReferringPhysicianName"):
        if keyword not in read:
            setattr(read, keyword, "")
    return read


def segmentation(
    sources: Sequence[Dataset], mask: NDArray[Any], kind: str = "BINARY", **options: Any
) -> Segmentation:
    """Return a segmentation of sources.

    Parameters
    ----------
    mask
        Shape ``(frames, rows, columns)`` with the number of each pixel's segment, or
        ``(frames, rows, columns, segments)``.
    """
    count = mask.shape[3] if mask.ndim > 3 else int(mask.max())
    return Segmentation(
        [readable(each) for each in sources],
        mask if kind == "FRACTIONAL" else mask.astype(np.uint8),
        kind,
        [_described(number) for number in range(1, count + 1)],
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Elsewhere",
        manufacturer_model_name="Contours",
        software_versions="1",
        device_serial_number="1",
        **options,
    )


def _described(number: int) -> SegmentDescription:
    return SegmentDescription(
        segment_number=number,
        segment_label=LABELS[number - 1],
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name="Contours", version="1", family=codes.cid7162.ArtificialIntelligence
        ),
    )


def written(made: Dataset) -> bytes:
    """Return an object as a file's bytes."""
    held = io.BytesIO()
    made.save_as(held)
    return held.getvalue()
