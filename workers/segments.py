"""Regions that a request gives as segments of a DICOM segmentation of its study."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from service.domain.grid import Grid
from service.domain.request import ExplanationRequest
from service.domain.target import Segment, SegmentationTarget
from service.domain.volume import Row
from service.errors.base import JobFailure, WhylightError
from service.errors.studies import UndecodablePixels
from workers.formats.derived import Source
from workers.given import Given
from workers.leeway import leeway
from workers.parcels import Decoded
from workers.slots import Slots
from workers.volumes.segment import Subject, read_segment

Affine = tuple[Row, Row, Row, Row]

TASK: Final = "segment"
LIMIT: Final = 60.0
"""Seconds to read one segment, beside what a large volume is allowed."""

MAX_VOXELS: Final = 256 << 20


def read_segments(
    decoded: Decoded, grid: Grid, slots: Slots, on_progress: Callable[[float], None]
) -> Mapping[Segment, Given]:
    """Read every segment that the request names, in supervised processes.

    Parameters
    ----------
    grid
        The model input's cells in the source.
    on_progress
        Called after each with the share of the stage that is done.

    Raises
    ------
    InvalidTarget
        There is no such segment; it is not one of what is explained, or marks none of its pixels.
    UndecodablePixels
        The segmentation is damaged.
    """
    fetched, limit = decoded.fetched, LIMIT + leeway(decoded.facts.shape)
    given: dict[Segment, Given] = {}
    asked = fetched.request.segments
    for count, region in enumerate(asked):
        to = fetched.scratch / f"segment_{count}.npy"
        source = fetched.segmentations[str(region.instance)]
        message = {
            "file": str(source.file),
            "segment": region.segment,
            "subject": subject_of(decoded).model_dump(mode="json"),
            "shape": list(grid.shape),
            "affine": grid.affine.tolist(),
            "to": str(to),
        }
        try:
            answer = slots.run(TASK, message, limit, lost=UndecodablePixels)
        except WhylightError as error:
            failure, field = error.failure(), _field(fetched.request, region)
            facts = {"field": field, **failure.facts}
            raise JobFailure(failure.model_copy(update={"facts": facts})) from error
        given[region] = Given(
            answer["number"], source.instance.sha256, np.load(to, allow_pickle=False)
        )
        on_progress((2 + count) / (1 + len(asked)))
    return given


def _field(request: ExplanationRequest, region: Segment) -> str:
    """Return where the request first gives a region, as JSON pointer."""
    given = [each.region for each in request.targets if isinstance(each, SegmentationTarget)]
    return f"/targets/{given.index(region)}/region"


def subject_of(decoded: Decoded) -> Subject:
    """Return what is explained, as a segmentation may refer to it."""
    volume, facts = decoded.volume, decoded.facts
    if volume is not None:
        return Subject(
            frame_of_reference_uid=volume.frame_of_reference_uid,
            affine=volume.affine,
            frames=tuple((each.sop_instance_uid, each.frame) for each in volume.slices),
            rows=volume.rows,
            columns=volume.columns,
        )
    source = Source.read(decoded.header)
    return Subject(
        frame_of_reference_uid=source.text("FrameOfReferenceUID"),
        affine=_affine(source),
        frames=((source.uids["sop_instance_uid"], facts.frame),),
        rows=facts.rows,
        columns=facts.columns,
    )


def _affine(source: Source) -> Affine | None:
    """Return where an image's pixels lie in the patient, as its one slice; `None` if not said."""
    position = source.numbers("ImagePositionPatient")
    orientation = source.numbers("ImageOrientationPatient")
    spacing = source.numbers("PixelSpacing")
    if (len(position), len(orientation), len(spacing)) != (3, 6, 2):
        return None
    row, column = np.reshape(orientation, (2, 3))
    matrix = np.eye(4)
    steps = (np.cross(row, column), column * spacing[0], row * spacing[1])
    matrix[:3] = np.stack([*steps, position], 1)
    return cast(Affine, tuple(map(tuple, matrix.tolist())))


def task(message: dict[str, Any]) -> dict[str, Any]:
    """Read one segment, inside a slot."""
    number, mask = read_segment(
        Path(message["file"]),
        message["segment"],
        Subject.model_validate(message["subject"]),
        Grid(tuple(message["shape"]), np.array(message["affine"])),
        max_voxels=MAX_VOXELS,
    )
    np.save(message["to"], mask, allow_pickle=False)
    return {"number": number}
