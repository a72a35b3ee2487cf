"""Where the source's images lie in the patient, if they say so and say it well."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.formats.derived import Source
from workers.formats.record import MapRecord

UNIT: Final = 1e-3
"""How far direction cosines may be from unit length and from a right angle."""


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """An image plane in patient coordinates (LPS, mm), PS3.3 C.7.6.2."""

    frame_of_reference_uid: str
    """Empty where the source does not name one, or not validly."""

    position: tuple[float, ...]
    """Center of the first pixel."""

    orientation: tuple[float, ...]
    """Direction of a row, then of a column: six cosines."""

    spacing: tuple[float, ...]
    """Between rows, between columns."""

    thickness: float | None

    @property
    def affine(self) -> NDArray[np.float64]:
        """Source pixel ``(row, column, slice, 1)`` to ``(x, y, z, 1)``, shape ``(4, 4)``."""
        along_row, along_column = np.reshape(self.orientation, (2, 3))
        affine = np.eye(4)
        affine[:3, 0] = along_column * self.spacing[0]
        affine[:3, 1] = along_row * self.spacing[1]
        affine[:3, 2] = np.cross(along_row, along_column) * (self.thickness or 1.0)
        affine[:3, 3] = self.position
        return affine


def planes_of(source: Source, record: MapRecord) -> tuple[Plane, ...]:
    """Return the plane of the image, or of every slice of the volume; none where one lacks.

    None either without a valid Frame of Reference UID, which objects with planes must bear.
    A volume's voxels are as thick as its slices, or where those do not say it, as
    the step from slice to slice.
    """
    volume = record.volume
    if volume is None:
        plane = plane_of(source)
        return () if plane is None or not plane.frame_of_reference_uid else (plane,)
    if not volume.frame_of_reference_uid:
        return ()
    thick = volume.thickness or volume.steps.median
    return tuple(
        Plane(
            volume.frame_of_reference_uid,
            each.position,
            volume.orientation,
            volume.pixel_spacing,
            thick,
        )
        for each in volume.slices
    )


def patient_affine(source: Source, record: MapRecord) -> NDArray[np.float64] | None:
    """Return what takes source pixels to LPS mm; `None` of an image without a plane.

    Pixels are ``(row, column, slice, 1)`` of an image, ``(slice, row, column, 1)`` of a volume.
    """
    if record.volume is not None:
        return record.volume.matrix
    plane = plane_of(source)
    return None if plane is None else plane.affine


def plane_of(source: Source) -> Plane | None:
    """Return the image's plane; `None` where an element lacks or is not valid."""
    position = source.numbers("ImagePositionPatient")
    orientation = source.numbers("ImageOrientationPatient")
    spacing = source.numbers("PixelSpacing")
    if (len(position), len(orientation), len(spacing)) != (3, 6, 2):
        return None
    directions = np.reshape(orientation, (2, 3))
    if np.abs(directions @ directions.T - np.eye(2)).max() > UNIT or min(spacing) <= 0:
        return None
    thickness = source.numbers("SliceThickness")
    thick = thickness[0] if len(thickness) == 1 and thickness[0] > 0 else None
    frame = source.text("FrameOfReferenceUID")
    return Plane(frame, position, orientation, spacing, thick)
