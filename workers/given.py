"""A region that the request gives, on the model's input."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain.value import Sha256


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A segment of a DICOM segmentation."""

    number: int
    segmentation: Sha256
    """Of the whole object."""

    mask: NDArray[np.bool_]
    """Shape ``spatial``."""
