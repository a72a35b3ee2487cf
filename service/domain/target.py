"""Which scalar is explained, as it is asked for."""

from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from service.domain.study import MOST_FRAMES
from service.domain.value import TAG, Number, Slug, Value, Whole
from service.domain.view import OfViews

TOP1 = "top1"
ABOVE_THRESHOLD = "above_threshold"
REST = "rest"
LOGIT: Final = "logit"
"""A class's own logit: what certificates and calibration are of."""

PROBABILITY: Final = "probability"
PIXELS: Final = "{pixels}"
"""Source pixels, as a unit of UCUM."""

Of = Annotated[Whole, Field(ge=0, le=100_000)] | Slug
"""An output of the model, by key or by index."""

LONGEST = 1_000_000
"""Source pixels of the longest edge that a box may reach to."""

Place = Annotated[Number, Field(ge=0, le=LONGEST)]
"""A coordinate in source pixels."""


ClassScore = Literal["logit", "probability", "margin"]
"""Which number of a class is explained."""

SCORE: Final = (
    "The scalar: the class's logit; its probability, which hardly changes near 0 and 1; or the"
    " margin of its logit over that of the next best class, or, of classes that do not exclude each"
    " other, over its own threshold."
)


class ClassTarget(Value):
    """A class of a classifier.

    `of` is a class key of the manifest, a class index, ``top1`` (the class
    with the highest score) or ``above_threshold`` (every class above its
    threshold; none is a success without a map).
    """

    kind: Literal["class"] = "class"
    of: Of = Field(description="Class key, class index, 'top1' or 'above_threshold'.")
    score: ClassScore = Field(default="logit", description=SCORE)


class ContrastTarget(Value):
    """Why one class of a classifier and not another: the difference of their logits."""

    kind: Literal["contrast"]
    of: Of = Field(description="Class key, class index, or 'top1'.")
    versus: Of = Field(
        description="Class key or index that it is held against; 'rest' for all others together,"
        " of classes that exclude each other."
    )


class RegressionTarget(Value):
    """A number that a regression gives, in the manifest's unit."""

    kind: Literal["regression"]
    of: Of = Field(description="Key or index of the value.")
    direction: Literal["increase", "decrease"] = Field(
        default="increase",
        description="Whether evidence for a higher or for a lower value counts as positive.",
    )
    reference: Number | None = Field(
        default=None,
        description="Value that the score is counted from, such as the patient's age; if not"
        " given, the manifest's.",
    )


def _holds_something(box: tuple[float, ...]) -> tuple[float, ...]:
    """Require of a box that it is no line."""
    half, odd = divmod(len(box), 2)
    if odd or not all(low < high for low, high in zip(box, box[half:], strict=False)):
        raise ValueError("a box needs four numbers or six, each end after its start")
    return box


SourceBox = Annotated[
    tuple[Place, ...],
    Field(
        min_length=4,
        max_length=6,
        description="Top, left, bottom, right in source pixels, the last two past the end; of a"
        " volume first slice, top, left, then last slice, bottom, right.",
    ),
    AfterValidator(_holds_something),
]
SourcePlace = Annotated[
    tuple[Place, ...],
    Field(
        min_length=2,
        max_length=3,
        description="Row and column in source pixels, of a volume slice, row and column, from 0.",
    ),
]


class PredictedMask(Value):
    """Where the model itself sees the class, on the unchanged image."""

    kind: Literal["predicted_mask"] = "predicted_mask"


class Box(Value):
    """A box of the source image or volume."""

    kind: Literal["box"]
    box: SourceBox


class Point(Value):
    """One pixel of the source image, or voxel of the source volume."""

    kind: Literal["point"]
    at: SourcePlace


class Segment(Value):
    """A segment of a DICOM segmentation that was sent with the study."""

    kind: Literal["segment"]
    instance: Annotated[str, Field(max_length=32)] | None = Field(
        default=None,
        description="The segmentation's name in the study, such as 'in_0002'; not needed where"
        " the study has but one.",
    )
    segment: (
        Annotated[Whole, Field(ge=1, le=65_535)] | Annotated[str, Field(max_length=64)] | None
    ) = Field(
        default=None,
        description="The segment's number or label; not needed where there is but one.",
    )


def _kind(value: Any) -> str:
    """Return the tag of a value's kind; what does not say is a class."""
    says = value.get if isinstance(value, dict) else partial(getattr, value)
    return f"{TAG}{says('kind', 'class')}"


def _tag(kind: str) -> Tag:
    """Return the tag of a kind: places of errors have it, and pointers leave it out."""
    return Tag(f"{TAG}{kind}")


Region = Annotated[
    Annotated[PredictedMask, _tag("predicted_mask")]
    | Annotated[Box, _tag("box")]
    | Annotated[Point, _tag("point")]
    | Annotated[Segment, _tag("segment")],
    Discriminator(_kind),
]


class SegmentationTarget(Value):
    """A class of a segmentation, over a region that stays the same while the image is changed."""

    kind: Literal["segmentation"]
    of: Of = Field(description="Class key or index.")
    region: Region = Field(default=PredictedMask(), description="Where the class is asked about.")
    reduce: Literal["mean", "sum", "margin"] = Field(
        default="mean",
        description="The scalar: mean or sum of the class's logits over the region, or the mean of"
        " their margin over what would be said instead.",
    )


class DetectionTarget(Value):
    """One box that a detector finds, or the best proposal about a box or a place of one's own."""

    kind: Literal["detection"]
    of: Of = Field(description="Class key or index.")
    number: Annotated[Whole, Field(ge=0, le=10_000)] = Field(
        default=0,
        description="Which of the class's boxes, as the answer lists them, the best first.",
    )
    box: SourceBox | None = Field(
        default=None,
        description="In place of a number: the best proposal that overlaps this box enough is"
        " explained, found or not.",
    )
    at: SourcePlace | None = Field(
        default=None,
        description="In place of a number: the best proposal whose box holds this place is"
        " explained, found or not.",
    )
    score: Literal[
        "class",
        "objectness",
        "iou_weighted",
        "first_slice",
        "end_slice",
        "top",
        "left",
        "bottom",
        "right",
    ] = Field(
        default="class",
        description="The scalar: the class's score; the objectness, of detectors that have one; the"
        " class's probability times the overlap with the box; or where an edge of the box lies, in"
        " source pixels.",
    )

    @model_validator(mode="after")
    def _says_which(self) -> "DetectionTarget":
        """Require that a box is named in one way."""
        if bool(self.number) + (self.box is not None) + (self.at is not None) > 1:
            raise ValueError(
                "name a box by its 'number', or give a 'box' or a place 'at', not both"
            )
        return self


class TimeToEventTarget(Value):
    """Why an event is foretold: the log hazard, or that the event comes by a time."""

    kind: Literal["time_to_event"]
    of: Literal["risk"] | None = Field(
        default=None, description="'risk': the log hazard, of a model that gives one."
    )
    horizon: Annotated[Number, Field(gt=0)] | None = Field(
        default=None,
        description="In its place, of a model in discrete time: one of the model's times, in its"
        " unit.",
    )

    @model_validator(mode="after")
    def _says_which(self) -> "TimeToEventTarget":
        """Require one of the two."""
        if (self.of is None) == (self.horizon is None):
            raise ValueError('name a time as \'horizon\', or say "of": "risk", not both')
        return self


class EmbeddingTarget(Value):
    """How alike an image is to another, or how far what an autoencoder gives back is from it."""

    kind: Literal["embedding"]
    of: Literal["reconstruction_error"] | None = Field(
        default=None,
        description="'reconstruction_error', of an autoencoder: the mean squared error over the"
        " prepared image.",
    )
    similarity_to: Annotated[str, Field(max_length=32)] | None = Field(
        default=None,
        description="In its place, of an encoder: name in the study of the image that this one is"
        " held against.",
    )

    @model_validator(mode="after")
    def _says_which(self) -> "EmbeddingTarget":
        """Require one of the two."""
        if (self.of is None) == (self.similarity_to is None):
            raise ValueError("name an image as 'similarity_to', or say what 'of', not both")
        return self


OF_SEVERAL: Final = (
    "Class key or index, 'top1' or 'above_threshold'; of a regression, the value; of a survival"
    " model, the key of its risk or of the event by a time."
)
SCORE_OF_SEVERAL: Final = "Of a class, as there; of all else none."


class ViewTarget(OfViews):
    """A class or value, with the maps of some of the model's views alone.

    The scalar is that of all views: a model has but one answer. Shares and colors are those
    among all views, too.
    """

    kind: Literal["view"]
    of: Of = Field(description=OF_SEVERAL)
    score: ClassScore | None = Field(default=None, description=SCORE_OF_SEVERAL)


class InstanceTarget(Value):
    """A class or value, with the map of one instance of the model's bag alone.

    The scalar is that of the whole bag: a model has but one answer.
    """

    kind: Literal["instance"]
    of: Of = Field(description=OF_SEVERAL)
    score: ClassScore | None = Field(default=None, description=SCORE_OF_SEVERAL)
    instance: Slug | None = Field(
        default=None, description="The object's name in the study, such as 'in_0002'."
    )
    frame: Whole | None = Field(
        default=None,
        ge=1,
        le=MOST_FRAMES,
        description="Of an object with several frames: which, counted from 1.",
    )
    slice: Whole | None = Field(
        default=None,
        ge=1,
        le=MOST_FRAMES,
        description="Of a bag of slices, in place of a name: which slice, counted from 1, as"
        " results list them.",
    )

    @model_validator(mode="after")
    def _says_which(self) -> "InstanceTarget":
        """Require one way to name the instance."""
        if (self.instance is None) == (self.slice is None):
            raise ValueError("name an 'instance' of the study, or a 'slice' by its number")
        if self.frame is not None and self.instance is None:
            raise ValueError("a 'frame' is of an 'instance': name that as well")
        return self


Target = Annotated[
    Annotated[ClassTarget, _tag("class")]
    | Annotated[ContrastTarget, _tag("contrast")]
    | Annotated[RegressionTarget, _tag("regression")]
    | Annotated[SegmentationTarget, _tag("segmentation")]
    | Annotated[DetectionTarget, _tag("detection")]
    | Annotated[TimeToEventTarget, _tag("time_to_event")]
    | Annotated[EmbeddingTarget, _tag("embedding")]
    | Annotated[ViewTarget, _tag("view")]
    | Annotated[InstanceTarget, _tag("instance")],
    Discriminator(_kind),
]
"""Every kind of target, told by `kind`; one that does not say is a class."""

KINDS: Final = MappingProxyType(
    {
        "classification-multilabel": ("class", "contrast"),
        "classification-multiclass": ("class", "contrast"),
        "regression": ("regression",),
        "segmentation": ("segmentation",),
        "detection": ("detection",),
        "survival": ("time_to_event",),
        "reconstruction": ("embedding",),
        "embedding": ("embedding",),
    }
)
"""Kinds of target that a model of a task has; one of several views has ``view`` as well, and one
of bags ``instance``."""

DEFAULT_TARGETS: tuple[Target, ...] = (ClassTarget(of=ABOVE_THRESHOLD),)
"""What is explained when neither request nor package of a classifier says."""
