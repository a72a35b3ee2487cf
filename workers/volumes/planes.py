"""Where each frame of a DICOM object lies in the patient, by its header."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydantic import JsonValue

from service.dicom.dataset import Parsed
from service.dicom.frames import described
from service.dicom.header import Header
from workers.formats.derived import Source

COSINES: Final = 1e-3
"""How far direction cosines may be from unit length and from a right angle."""

SHOWN: Final = 20
"""Slices, or steps between them, that a refusal names at most."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One frame and its place in patient coordinates (LPS, mm), PS3.3 C.7.6.2."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    frame: int | None
    """Counted from 1; `None` where the object has but one."""

    frame_of_reference_uid: str
    rows: int
    columns: int
    position: tuple[float, ...]
    """Center of the first pixel; empty where it is not said, or not validly."""

    orientation: tuple[float, ...]
    """Direction of a row, then of a column: six cosines; likewise."""

    spacing: tuple[float, ...]
    """Between rows, between columns; likewise."""

    thickness: float | None = None
    instance: str = ""
    """The object's name within the study; safe to show."""

    instance_number: int | None = None

    @property
    def place(self) -> dict[str, JsonValue]:
        """What tells people which image it is; safe to show."""
        return {
            "instance": self.instance,
            "instance_number": self.instance_number,
            "frame": self.frame,
        }

    @property
    def placed(self) -> bool:
        """Whether all is known that it takes to find a pixel in the patient."""
        return bool(self.position and self.orientation and self.spacing)


def named(planes: Sequence[Plane]) -> list[JsonValue]:
    """Return the places of slices as a refusal tells them, `SHOWN` at most."""
    return [plane.place for plane in planes[:SHOWN]]


def planes_of(found: Parsed, header: Header, instance: str = "") -> Iterator[Plane]:
    """Yield every frame's plane; of enhanced objects by the functional groups (C.7.6.16).

    `instance` is what the object is called in its study.
    """
    whole = Source.of(found)
    several = header.number_of_frames > 1
    for frame in range(1, header.number_of_frames + 1):
        own = Source(described(found.dataset, frame), whole.uids, whole.transfer_syntax_uid)
        # a position that is said once of several frames is not each one's
        position = _said(own, own if several else whole, "ImagePositionPatient")
        thickness = _said(own, whole, "SliceThickness")
        yield Plane(
            sop_class_uid=header.sop_class_uid,
            sop_instance_uid=header.sop_instance_uid,
            series_instance_uid=header.series_instance_uid,
            frame=frame if several else None,
            frame_of_reference_uid=whole.text("FrameOfReferenceUID"),
            rows=header.rows,
            columns=header.columns,
            position=position if len(position) == 3 else (),  # noqa: PLR2004 - x, y, z
            orientation=_orientation(_said(own, whole, "ImageOrientationPatient")),
            spacing=_spacing(_said(own, whole, "PixelSpacing")),
            thickness=thickness[0] if len(thickness) == 1 and thickness[0] > 0 else None,
            instance=instance,
            instance_number=header.instance_number,
        )


def _said(own: Source, whole: Source, keyword: str) -> tuple[float, ...]:
    return (own if keyword in own.dataset else whole).numbers(keyword)


def _orientation(cosines: tuple[float, ...]) -> tuple[float, ...]:
    """Return the six cosines if they are two directions at a right angle."""
    if len(cosines) != 6:  # noqa: PLR2004 - two directions
        return ()
    directions = np.reshape(cosines, (2, 3))
    return cosines if np.abs(directions @ directions.T - np.eye(2)).max() <= COSINES else ()


def _spacing(spacing: tuple[float, ...]) -> tuple[float, ...]:
    return spacing if len(spacing) == 2 and min(spacing) > 0 else ()  # noqa: PLR2004 - two axes
