"""A study as it was taken in: what its objects are, without their pixels.

The record lies in the object store, never in Redis: it holds the UIDs that
derived objects need. No field of it may reach a log or an error text.
"""

from pydantic import AwareDatetime, JsonValue

from service.domain.patient import Patient
from service.domain.value import Name, Sha256, Value
from service.domain.volume import Orientation

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
"""SOP classes of objects that mark regions of others (PS3.4 B.5)."""

MOST_FRAMES = 100_000
"""Frames that one object may have: an hour of ultrasound has them."""


class ImageHeader(Value):
    """What a DICOM image's header says, as far as it is kept; unknown words are empty."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    patient: Patient = Patient()
    """By which patients are told apart and none is known."""

    transfer_syntax_uid: str
    series_number: int | None = None
    instance_number: int | None = None
    """By which people tell series and images of a study apart; `None` where it is not said."""

    modality: str
    body_part_examined: str
    view_position: str
    laterality: str = ""
    """``L``, ``R`` or ``B``; empty where it is not said."""

    view_modified: bool = False
    """Whether its view is a modified one, such as a magnification or a spot compression."""

    localizer: bool = False
    """Whether it is an overview by which slices were planned."""

    presentation_intent: str = ""
    """Of a digital X-ray ``FOR PRESENTATION`` or ``FOR PROCESSING``; empty where it is not said."""

    image_type: tuple[str, ...] = ()
    plane: Orientation | None = None
    """Of the body, nearest to the image; of several frames, to the first. `None` where it is
    not said."""

    photometric_interpretation: str
    rows: int
    columns: int
    number_of_frames: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int

    @property
    def is_segmentation(self) -> bool:
        """Whether it marks regions of other objects, and is nothing to be explained."""
        return self.sop_class_uid in {SEGMENTATION, LABEL_MAP}


class Instance(ImageHeader):
    """One DICOM object of a study, by its header."""

    id: str
    """Name within the study, such as ``in_0001``; opaque, safe to show."""

    part: int
    """Its place in the request, counted from 1."""

    path: str
    """Where its bytes lie in the object store."""

    bytes: int
    sha256: Sha256

    @property
    def place(self) -> dict[str, JsonValue]:
        """What tells people which image of the upload it is; safe to show."""
        return self.model_dump(include={"id", "part", "series_number", "instance_number"})


class Skipped(Value):
    """An object that was sent and not kept, and why."""

    part: int
    """Its place in the request, counted from 1; names of files are not kept."""

    code: Name
    detail: str


class Study(Value):
    """What came in together: the objects kept and the objects skipped."""

    id: str
    tenant: str
    created: AwareDatetime
    expires: AwareDatetime
    instances: tuple[Instance, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def series(self) -> dict[str, tuple[Instance, ...]]:
        """The instances by series, under names such as ``se_0001``: opaque, safe to show."""
        groups: dict[str, list[Instance]] = {}
        for each in self.instances:
            groups.setdefault(each.series_instance_uid, []).append(each)
        return {f"se_{place:04d}": tuple(group) for place, group in enumerate(groups.values(), 1)}
