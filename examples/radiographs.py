"""Drawn radiographs: what heads them as DICOM, and what models see of one."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from examples.dicom import HIGHEST, Photometric, finished, mirrored, synthetic
from service.domain.inputs import StepChoice

SMALL: Final = 64
"""Rows and columns of a model's input."""

WIDTH, MEAN, STD = 2800.0, 0.4, 0.2
"""Width of the window from 0 on, and what its shares are normalized by."""

STEPS: Final = (
    StepChoice(name="invert_monochrome1"),
    StepChoice(name="window", parameters={"kind": "fixed", "center": WIDTH / 2, "width": WIDTH}),
    StepChoice(name="resize", parameters={"size": [SMALL, SMALL]}),
    StepChoice(name="normalize", parameters={"mean": [MEAN], "std": [STD]}),
)


def seen(stored: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the model's input of stored values, shape ``(SMALL, SMALL)``, as of `STEPS`."""
    return ((shrunk(np.clip(stored / WIDTH, 0, 1)) - MEAN) / STD).astype(np.float32)


def shrunk(image: NDArray[np.floating] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the means of the blocks of an image that become the input's pixels."""
    rows, columns = image.shape
    blocks = image.reshape(SMALL, rows // SMALL, SMALL, columns // SMALL)
    means: NDArray[np.float64] = blocks.mean((1, 3))
    return means


def plated(
    data: Dataset, stored: NDArray[np.uint16], photometric: Photometric = "MONOCHROME2"
) -> Dataset:
    """Put pixels into a drawn radiograph, in either way to store the same picture; return it."""
    if photometric == "MONOCHROME1":
        stored = mirrored(stored)
        data.WindowCenter = f"{HIGHEST - WIDTH / 2:.0f}"
    return finished(data, stored, photometric)


def radiograph(kind: str, name: str) -> Dataset:
    """Return the head of a drawn radiograph of no person; parameters as of `synthetic`."""
    data = synthetic(kind, name)
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.PatientComments = "Synthetic image of no person. Not for clinical use."
    data.AccessionNumber = "1"
    data.ImagerPixelSpacing = [1.5, 1.5]
    data.LossyImageCompression, data.BurnedInAnnotation = "00", "NO"
    data.WindowCenter, data.WindowWidth = f"{WIDTH / 2:.0f}", f"{WIDTH:.0f}"
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "0", "1", "US"
    return data
