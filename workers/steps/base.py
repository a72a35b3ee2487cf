"""What every preprocessing step is: a small, invertible change of the image.

The set is closed: a manifest names steps, it brings none. A step is a frozen
pydantic model whose fields are its parameters; a geometric one also moves the
grid, so that every cell of the model's input can be found in the source image.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from service.domain.grid import Grid
from service.registry import Registry
from workers.parcels import ImageFacts


@dataclass(frozen=True, slots=True, eq=False)
class StepImage:
    """An image on its way from modality values to the model's input.

    Attributes
    ----------
    values
        Float32, shape ``(C, rows, columns)``.
    padding
        Pixels that were never measured, shape ``(rows, columns)``, if any.
    grid
        The image's pixels in the source image.
    """

    values: NDArray[np.float32]
    padding: NDArray[np.bool_] | None
    grid: Grid


class Step(BaseModel, ABC):
    """One preprocessing step; its fields are its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]

    @abstractmethod
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        """Return the changed image; `facts` tell of the source image."""


STEPS: Registry[Step] = Registry("workers.steps", "whylight.steps")
"""Steps by name."""
