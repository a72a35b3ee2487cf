"""A region that the request gives, on the model's input."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A segment of a DICOM segmentation."""

    number: int
    mask: NDArray[np.bool_]
    """Shape ``spatial``."""
