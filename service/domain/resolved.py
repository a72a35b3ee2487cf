"""The scalar that is explained, as the model's answer on the image made it definite."""

from typing import Literal

from service.domain.boxes import BoxWindows, PatientBox
from service.domain.target import LOGIT, Target
from service.domain.value import Name, Sha256, Slug, Value


class FrozenRegion(Value):
    """A region as the unchanged image made it definite."""

    kind: Literal["predicted_mask", "box", "point", "segment"]
    cells: int
    """Pixels or voxels of the model's input."""

    digest: Sha256
    """Of the mask on the model's input: bits in C order, eight to a byte."""

    box: tuple[float, ...]
    """Its bounds in source pixels, starts before ends, the ends past the end."""

    segmentation: Sha256 | None = None
    """Of the DICOM segmentation that a segment is of."""


class ResolvedTarget(Value):
    """A target as the model's answer on the image made it definite."""

    kind: Literal[
        "class",
        "contrast",
        "regression",
        "segmentation",
        "detection",
        "time_to_event",
        "embedding",
    ] = "class"
    key: Slug
    """Names the target in artifact names: the key of a class or value, or begins with it."""

    label: str
    index: int
    """Of the class or value."""

    of: Slug | None = None
    """Key of the class or value; `None` where `key` is."""

    view: Name | None = None
    """Key of the view whose map this is, of a model of several; of a bag of images, the image's
    name in the study."""

    slice: int | None = None
    """Which slice of a bag of slices the map is of alone, counted from 1."""

    asked_as: str
    """What the request said: a key, an index, ``top1``, ``above_threshold``."""

    score: float
    """The explained scalar on the unchanged image."""

    quantity: str = LOGIT
    """What the scalar is, in words."""

    versus: Slug | None = None
    """Of a margin, key of the class that was next best on the unchanged image."""

    probability: float | None
    threshold: float | None
    above_threshold: bool | None
    """Whether the probability reaches the manifest's threshold."""

    saturated: bool = False
    """Whether a probability is explained that hardly changes with its logit any more."""

    value: float | None = None
    """The number that a regression gives."""

    unit: str | None = None
    """Its unit, as of UCUM, or that of the score where an edge of a box is explained."""

    reference: float | None = None
    """What the score of a regression is counted from."""

    region: FrozenRegion | None = None
    """Of a segmentation."""

    box: tuple[float, ...] | None = None
    """Of a detection: what is explained, in source pixels, starts before ends."""

    patient: PatientBox | None = None
    """Where that lies in the patient, of a volume."""

    windows: BoxWindows | None = None
    """What of the image the explained score depends on, of a model that sees windows."""

    overlap: float | None = None
    """Of it and the box that was asked for (IoU); `None` where none was."""

    against: Sha256 | None = None
    """Of a similarity: the object that the image is held against."""

    again: Target | None = None
    """What to ask for to have the same explained; `None` for the class of `index`."""

    @property
    def about(self) -> str:
        """Key of the class or value that is explained."""
        return self.of or self.key

    @property
    def beside(self) -> Sha256 | None:
        """The object of the study that it was made of beside the image, if it was."""
        return self.against if self.region is None else self.region.segmentation

    @property
    def is_logit(self) -> bool:
        """Whether it is a class's own logit, which alone is certified and calibrated."""
        return self.kind == "class" and self.quantity == LOGIT

    @property
    def part(self) -> str | int | None:
        """Which of several views or images its map is of, by key, or which slice, from 1."""
        return self.slice if self.view is None else self.view
