"""What every preprocessing step is: a small, invertible change of the image.

The set is closed: a manifest names steps, it brings none. A step is a frozen
pydantic model whose fields are its parameters; a geometric one also moves the
grid, so that every cell of the model's input can be found in the source image.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from service.domain.grid import Grid, scaling
from service.errors.models import InvalidPackage
from service.errors.studies import NotAcceptedByModel
from service.registry import Registry
from workers.parcels import ImageFacts


@dataclass(frozen=True, slots=True, eq=False)
class StepImage:
    """An image on its way from modality values to the model's input.

    Attributes
    ----------
    values
        Float32, shape ``(C, *spatial)``: rows and columns, or the axes of a volume. For steps
        that take them, integers as they were stored.
    padding
        Pixels that were never measured, shape ``spatial``, if any.
    grid
        The image's pixels in the source image, or its voxels in the source volume.
    patient
        Of a volume: source voxel ``(slice, row, column, 1)`` to patient coordinates
        (LPS, mm), shape ``(4, 4)``; `None` of a single image.
    """

    values: NDArray[Any]
    padding: NDArray[np.bool_] | None
    grid: Grid
    patient: NDArray[np.float64] | None = None

    @property
    def axes(self) -> NDArray[np.float64]:
        """The way from cell to cell along each axis, in patient mm: the columns, shape ``(3, 3)``.

        Raises
        ------
        NotAcceptedByModel
            The image is no volume.
        """
        if self.patient is None:
            raise NotAcceptedByModel("The model takes a volume, which has a place in the patient.")
        return np.asarray((self.patient @ self.grid.affine)[:3, :3])


def demand_axes(image: StepImage, size: Sequence[object]) -> None:
    """Refuse a parameter that is of more or fewer axes than the image has.

    Raises
    ------
    InvalidPackage
        It is.
    """
    if len(size) != image.values.ndim - 1:
        raise InvalidPackage(
            "A step is for images of another number of axes.",
            axes=image.values.ndim - 1,
            given=len(size),
        )


def cut(image: StepImage, start: Sequence[int], size: tuple[int, ...]) -> StepImage:
    """Return the box of `size` cells that begins at `start` and lies within the image."""
    box = tuple(slice(at, at + length) for at, length in zip(start, size, strict=True))
    grid = Grid(size, scaling(np.ones(len(size)), start)).within(image.grid)
    padding = None if image.padding is None else image.padding[box]
    return replace(image, values=image.values[:, *box], padding=padding, grid=grid)


class Step(BaseModel, ABC):
    """One preprocessing step; its fields are its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    takes_integers: ClassVar[bool] = False
    """Whether values may come as they were stored; they are made float32 before other steps."""

    def channels(self, before: int) -> int | None:
        """Return how many channels it makes of so many; `None` where it refuses them."""
        return before

    @abstractmethod
    def apply(self, image: StepImage, facts: ImageFacts) -> StepImage:
        """Return the changed image; `facts` tell of the source image."""


STEPS: Registry[Step] = Registry("workers.steps", "whylight.steps")
"""Steps by name."""
