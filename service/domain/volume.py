"""A series as one volume: where each of its slices lies in the patient.

Axes are in array order, ``(slice, row, column)``; patient coordinates are
DICOM's own, in mm: x to the left, y to the back, z to the head (LPS).
"""

from enum import StrEnum
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from service.domain.value import Value

Row = tuple[float, float, float, float]
Point = tuple[float, float, float]
Orientation = Literal["sagittal", "coronal", "axial"]
ORIENTATIONS: Final[tuple[Orientation, ...]] = ("sagittal", "coronal", "axial")
"""Planes of the body, by the patient axis that is normal to them."""


def nearest_plane(normal: NDArray[np.float64]) -> Orientation:
    """Return the plane of the body whose normal is nearest to `normal`, shape ``(3,)``."""
    return ORIENTATIONS[int(np.abs(normal).argmax())]


class Geometry(StrEnum):
    """What a series' slices are to each other."""

    REGULAR = "regular"
    """Equal steps along the normal: a box of voxels."""

    SHEARED = "sheared"
    """Equal steps aslant to the normal, as a tilted gantry makes them."""

    IRREGULAR = "irregular"
    """Unequal steps: a slice is missing, or the spacing changes."""

    DUPLICATES = "duplicates"
    """Several slices at one place."""

    MIXED = "mixed"
    """Slices of several orientations, sizes, pixel spacings or frames of reference."""

    NONE = "none"
    """A slice does not say where it lies, or there is but one."""


class Steps(Value):
    """Distances from slice to slice, in mm along the normal."""

    median: float
    least: float
    greatest: float


class Slice(Value):
    """One slice of a volume: the frame that it was read from."""

    sop_class_uid: str
    sop_instance_uid: str
    frame: int | None = None
    """Counted from 1; `None` where the object has but one."""

    position: Point
    """Center of the first pixel, in patient coordinates (mm)."""

    instance: str = ""
    """Its object's name within the study, such as ``in_0001``; safe to show."""

    instance_number: int | None = None
    """Its object's, by which people find it again; `None` where that has none."""

    @property
    def place(self) -> dict[str, JsonValue]:
        """What tells people which image it is; safe to show."""
        return self.model_dump(include={"instance", "instance_number", "frame"})


class Volume(Value):
    """A series whose slices form one regular or sheared box of voxels."""

    geometry: Geometry
    """`REGULAR` or `SHEARED`: nothing else is ever made a volume."""

    affine: tuple[Row, Row, Row, Row]
    """Voxel ``(slice, row, column, 1)`` to patient ``(x, y, z, 1)`` in mm, homogeneous."""

    rows: int
    columns: int
    slices: tuple[Slice, ...]
    """In the order of the first voxel axis: along the normal of the slices."""

    series_instance_uid: str
    frame_of_reference_uid: str
    """Empty where the series names none."""

    orientation: tuple[float, float, float, float, float, float]
    """Direction of a row, then of a column: six cosines."""

    pixel_spacing: tuple[float, float]
    """Between rows, between columns, in mm."""

    thickness: float | None
    """Of a slice, in mm, where the series says it."""

    steps: Steps
    tilt: float
    """Angle between the way from slice to slice and the normal, in degrees."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return len(self.slices), self.rows, self.columns

    @property
    def pages(self) -> tuple[int, ...]:
        """Each slice's number as people count, from 1: by Instance Number, then by frame.

        By position, where objects have none or share one.
        """
        count = range(len(self.slices))
        said = [(each.instance_number, each.frame or 0) for each in self.slices]
        if any(number is None for number, _ in said) or len(set(said)) < len(said):
            return tuple(number + 1 for number in count)
        ranks = {number: rank for rank, number in enumerate(sorted(count, key=said.__getitem__), 1)}
        return tuple(ranks[number] for number in count)

    @property
    def plane(self) -> Orientation:
        """The plane of the body that the slices are nearest to."""
        row, column = np.reshape(self.orientation, (2, 3))
        return nearest_plane(np.cross(row, column))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The affine as an array, shape ``(4, 4)``."""
        return np.array(self.affine)
