"""Labeled sets of phantoms, prepared for the model."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pydicom
from numpy.typing import NDArray

from examples.dicom import Photometric
from examples.phantom.canvas import Array, Mask
from examples.phantom.chest import Case, cases, draw, plate_of
from examples.phantom.dicom import dataset
from examples.phantom.findings import FINDINGS
from examples.phantom.preparation import SIDE, prepare, shrink_mask

DRAFT = (256, 256)
"""Size at which training images are drawn: twice the model's input."""

ROWS = 1280
"""Rows of a radiograph of DICOM size; the columns follow from the plate."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Prepared images with what they show."""

    images: Array
    """Model inputs, shape ``(N, 1, SIDE, SIDE)``."""
    labels: NDArray[np.bool_]
    """Findings present, shape ``(N, findings)``."""
    masks: Mask
    """Where they are, shape ``(N, findings, SIDE, SIDE)``."""


def drafts(seed: int, count: int) -> Samples:
    """Draw `count` cases at `DRAFT` size: quick, for training."""
    return drafts_of(tuple(cases(seed, count)))


def drafts_of(chosen: Sequence[Case]) -> Samples:
    """Draw the chosen cases at `DRAFT` size."""
    samples = _empty(len(chosen))
    for index, case in enumerate(chosen):
        radiograph = draw(case, DRAFT)
        _fill(samples, index, prepare(radiograph.stored), radiograph.masks)
    return samples


def radiographs(seed: int, count: int) -> Samples:
    """Draw `count` cases as DICOM objects of full size: for testing."""
    return radiographs_of(tuple(cases(seed, count)))


def radiographs_of(chosen: Sequence[Case]) -> Samples:
    """Write the chosen cases as DICOM objects of full size and read them back.

    Every other one is MONOCHROME1.
    """
    samples = _empty(len(chosen))
    for index, case in enumerate(chosen):
        radiograph = draw(case, full_size(case))
        photometric: Photometric = "MONOCHROME1" if index % 2 else "MONOCHROME2"
        buffer = io.BytesIO()
        dataset(case, radiograph, photometric).save_as(buffer, enforce_file_format=True)
        _fill(samples, index, read(buffer.getvalue()), radiograph.masks)
    return samples


def full_size(case: Case) -> tuple[int, int]:
    """Return rows and columns of a case at DICOM size, with square pixels."""
    plate = plate_of(case)
    return ROWS, round(ROWS * plate.width / plate.height)


def read(content: bytes) -> Array:
    """Return the model input of a DICOM object, shape ``(SIDE, SIDE)``."""
    data = pydicom.dcmread(io.BytesIO(content))
    return prepare(data.pixel_array, data.PhotometricInterpretation)


def labels_of(chosen: Sequence[Case]) -> NDArray[np.bool_]:
    """Return which findings the cases have, shape ``(N, findings)``."""
    return np.array([[name in case.findings for name in FINDINGS] for case in chosen])


def _empty(count: int) -> Samples:
    return Samples(
        images=np.zeros((count, 1, SIDE, SIDE), np.float32),
        labels=np.zeros((count, len(FINDINGS)), bool),
        masks=np.zeros((count, len(FINDINGS), SIDE, SIDE), bool),
    )


def _fill(samples: Samples, index: int, image: Array, masks: Mapping[str, Mask]) -> None:
    samples.images[index, 0] = image
    for place, name in enumerate(FINDINGS):
        if name in masks:
            samples.labels[index, place] = True
            samples.masks[index, place] = shrink_mask(masks[name])
