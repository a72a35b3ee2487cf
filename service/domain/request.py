"""What is asked for: a study, a model, targets, methods, artifacts."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    JsonValue,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from service.domain.inputs import TensorName
from service.domain.job import Priority
from service.domain.precision import Precision
from service.domain.study import MOST_FRAMES
from service.domain.target import (
    DEFAULT_TARGETS,
    EmbeddingTarget,
    Of,
    Segment,
    SegmentationTarget,
    SourceBox,
    Target,
)
from service.domain.value import Flag, Name, Number, Slug, Value, Whole
from service.domain.variable import Word
from service.domain.view import MOST_IMAGES

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
"""A caller's own mark; opaque to us, it must not identify a patient."""

DEFAULT_ARTIFACTS = ("dicom_sc", "json")

TransferSyntax = Literal[
    "explicit_vr_little_endian", "jpeg_ls_lossless", "jpeg_2000_lossless", "rle_lossless"
]
"""Encodings of DICOM images; none loses anything."""


Style = Literal["overlay", "contour"]
"""How pictures show a map: in colors over the image, or by lines around its regions."""


SliceChoice = Literal["relevant", "all"]
"""Which slices of a volume are shown: those with the most evidence, or every one."""

MOST_SLICES = 32
"""Slices of a volume that are shown when not all are asked for."""

ObjectChoice = Literal["multi_frame", "single_frame"]
"""Whether the slices shown are frames of one DICOM object, or an object each."""


Inputs = (
    Annotated[TensorName, WithJsonSchema({"const": "all", "type": "string"})]
    | Annotated[tuple[TensorName, ...], Field(min_length=1, max_length=64)]
)
"""``all``, or names; another word is refused at admission, where the model's names are known."""


class DicomChoice(Value):
    """How DICOM objects are written."""

    transfer_syntax: TransferSyntax = Field(
        default="explicit_vr_little_endian",
        description="Encoding of images with integer pixels; other objects are never compressed.",
    )
    slices: SliceChoice = Field(
        default="relevant",
        description="Which slices of a volume the captured picture shows: the 32 with the most"
        " evidence, or all.",
    )
    objects: ObjectChoice = Field(
        default="multi_frame",
        description="Whether they are frames of one capture, or a capture each.",
    )


class MethodChoice(Value):
    """A method by name, with its parameters."""

    name: Name
    parameters: dict[Name, JsonValue] = Field(default_factory=dict, max_length=32)


class Observed(Value):
    """What the AI that issued the result said of one class or value, to compare with."""

    of: Of = Field(description="Class key or index.")
    score: Number | None = Field(default=None, description="The number it gave.")
    scale: Literal["probability", "logit", "value"] = Field(
        default="probability",
        description="What kind of number `score` is; 'value' for a regression.",
    )
    positive: Flag | None = Field(
        default=None, description="Whether it reported the class, by its own threshold."
    )
    tolerance: Number = Field(
        default=0.02,
        ge=0,
        le=1e6,
        description="Largest difference of `score` that still matches, on the same scale.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> "Observed":
        """Require a score or a decision, and a probability to be one."""
        if self.score is None and self.positive is None:
            raise ValueError("give 'score' or 'positive', or both")
        if self.score is not None and self.scale == "probability" and not 0 <= self.score <= 1:
            raise ValueError("a probability lies between 0 and 1; for other scores set 'scale'")
        return self


class Annotation(Value):
    """Where a reader sees the finding: a box of the source image, or of the volume."""

    of: Of = Field(description="Class key or index.")
    box: SourceBox
    view: Name | None = Field(
        default=None,
        description="Key of the view that it is in, of a model of several views; of a bag of"
        " images, the image's name in the study.",
    )


QUESTION = (
    "methods",
    "values",
    "inputs",
    "precision",
    "targets",
    "checks",
    "observed",
    "allow_mismatch",
    "allow_uncertified",
    "annotations",
)
"""Fields of a request that decide what its answer says; the others, how and when it is given."""


class ExplanationRequest(Value):
    """One request: every target is explained by every method."""

    study: Slug = Field(description="Identifier that POST /v1/studies answered.")
    instance: Slug | None = Field(
        default=None,
        description="Which object of the study; needed only when several fit the model.",
    )
    series: Slug | None = Field(
        default=None,
        description="Which series of the study; needed only when several fit the model.",
    )
    frame: Whole | None = Field(
        default=None,
        ge=1,
        le=MOST_FRAMES,
        description="Which frame, counted from 1; needed only of an object with several.",
    )
    model: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._@-]{0,127}$")] = Field(
        description="Model name, or name@version; without a version, the newest that loaded."
    )
    targets: tuple[Target, ...] = Field(
        default=DEFAULT_TARGETS,
        min_length=1,
        max_length=32,
        description="What is explained; if not given, what the model's package says.",
    )
    values: dict[Slug, Number | Word] = Field(
        default={},
        max_length=64,
        description="Numbers or words that the model takes beside the image, by the keys of its"
        " 'variables'; one that is not given is read from the image's header, or is the default.",
    )
    inputs: Inputs = Field(
        default="all",
        description="Which inputs of the model the score is shared out among, by the names of its"
        " 'inputs', the image always among them; others stay as they are.",
    )
    views: dict[Name, Slug] = Field(
        default={},
        max_length=8,
        description="Which object of the study is which view, by the keys of the model's 'views';"
        " needed only of those that several fit.",
    )
    instances: tuple[Slug, ...] = Field(
        default=(),
        max_length=MOST_IMAGES,
        description="Which objects of the study are in the bag, of a model that takes single"
        " images in any number; if not given, all that the model was made for.",
    )
    methods: tuple[MethodChoice, ...] = Field(min_length=1, max_length=16)
    artifacts: tuple[Name, ...] = Field(default=DEFAULT_ARTIFACTS, max_length=16)
    grid: Literal["native", "source"] = Field(
        default="native",
        description="Grid of array artifacts: where the method made the map, or the source image.",
    )
    style: Style = Field(
        default="overlay",
        description="How pictures show a map: colors, or lines around the strongest evidence.",
    )
    dicom: DicomChoice = Field(default=DicomChoice(), description="How DICOM objects are written.")
    checks: Literal["none", "standard", "full"] = Field(
        default="standard",
        description="How much each map is checked; 'full' also runs every method again.",
    )
    observed: tuple[Observed, ...] = Field(
        default=(),
        max_length=64,
        description="What the AI that issued the result said; compared first.",
    )
    allow_mismatch: Flag = Field(
        default=False, description="Explain although the model says something else than `observed`."
    )
    allow_uncertified: Flag = Field(
        default=False,
        description="Use methods that failed their certificate for this model; the results say so.",
    )
    precision: Precision = Field(
        default="float32",
        description=(
            "What the maps are computed in: 'bfloat16' is faster, and offered for methods whose"
            " maps of the model were found near those in float64; see the model's 'precisions'."
        ),
    )
    annotations: tuple[Annotation, ...] = Field(
        default=(), max_length=64, description="Where findings are, to hold maps against."
    )
    priority: Priority = Priority.NORMAL
    label: Label | None = None

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Every segment that is a target's region, once."""
        regions = (each.region for each in self.targets if isinstance(each, SegmentationTarget))
        return tuple(dict.fromkeys(each for each in regions if isinstance(each, Segment)))

    @property
    def references(self) -> tuple[str, ...]:
        """Every image that the one explained is held against, once."""
        named = (each.similarity_to for each in self.targets if isinstance(each, EmbeddingTarget))
        return tuple(dict.fromkeys(each for each in named if each is not None))

    @property
    def beside(self) -> frozenset[str]:
        """Every object that targets are made of beside the image explained."""
        return frozenset({*self.references, *(str(each.instance) for each in self.segments)})

    @field_validator("methods", mode="before")
    @classmethod
    def _names_alone(cls, value: object) -> object:
        """Accept a method's bare name for a method with default parameters."""
        if not isinstance(value, list | tuple):
            return value
        return [{"name": each} if isinstance(each, str) else each for each in value]

    @field_validator("targets", mode="before")
    @classmethod
    def _keys_alone(cls, value: object) -> object:
        """Accept a class key or index alone for a class target."""
        if not isinstance(value, list | tuple):
            return value
        return [{"of": each} if isinstance(each, str | int) else each for each in value]

    @model_validator(mode="after")
    def _annotations_are_checked(self) -> "ExplanationRequest":
        """Refuse annotations that nothing would be held against."""
        if self.annotations and self.checks == "none":
            raise ValueError("annotations are held against maps by the checks: ask for checks")
        return self

    @field_validator("methods")
    @classmethod
    def _once_each(cls, value: tuple[MethodChoice, ...]) -> tuple[MethodChoice, ...]:
        """Refuse a method named twice: artifact names would collide."""
        names = [each.name for each in value]
        if len(set(names)) != len(names):
            raise ValueError("each method may be named once in a request")
        return value

    def question(self) -> dict[str, JsonValue]:
        """Return what is asked, without how the answer is wanted."""
        return self.model_dump(mode="json", include=set(QUESTION))
