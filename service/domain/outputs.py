"""The output of a model and the meaning of its numbers."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema, model_validator

from service.domain.boxes import BoxDecoding
from service.domain.value import SLUG, Name, Slug, Value


def _is_reached_by_some(threshold: float) -> float:
    """Require of a threshold that answers lie on both sides of it."""
    if not 0 < threshold < 1:
        raise ValueError(
            "a threshold is a probability above 0 and below 1: 0 is reached by every image and 1 by"
            " none, and no logit can be held against them; leave it out where nothing is decided"
        )
    return threshold


Threshold = Annotated[
    float,
    AfterValidator(_is_reached_by_some),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
]
"""Operating threshold, as a probability; its log odds are finite."""


class Code(Value):
    """A coded concept; all three parts or none."""

    system: Literal["SCT", "RADLEX", "LN", "DCM"]
    value: str
    meaning: str


class ClassSpec(Value):
    """One class of an output, in the order of the model's logits."""

    key: Slug
    label: str
    threshold: Threshold | None = None
    """From which probability on the class is found; of a detection, a box of it."""

    not_for_use: str | None = None
    """Why nobody may ask for this class, if so; no decision is given on it."""

    code: Code | None = None


class ValueSpec(Value):
    """One number of a regression, in the order of the model's outputs."""

    key: Slug
    label: str
    unit: str = Field(default="1", max_length=16)
    """As of UCUM: ``mo``, ``mL``, ``1`` without one."""

    slope: float = Field(default=1.0, allow_inf_nan=False)
    intercept: float = Field(default=0.0, allow_inf_nan=False)
    """What the network puts out, times the slope, plus the intercept, is the value."""

    reference: float | None = Field(default=None, allow_inf_nan=False)
    """What the value is counted from where a request does not say."""

    not_for_use: str | None = None
    """Why nobody may ask for this value, if so."""

    code: Code | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "ValueSpec":
        """Require that the value depends on the network."""
        if self.slope == 0:
            raise ValueError("a slope of 0 gives the same value for every image")
        return self


class Horizon(Value):
    """A time by which an event may have come: the end of one interval of a survival model."""

    time: float = Field(gt=0, le=100_000, allow_inf_nan=False)
    """From the image on, in the event's unit."""

    threshold: Threshold | None = None
    """From which probability on the event is foretold by then."""

    not_for_use: str | None = None
    """Why nobody may ask for this time, if so."""


class EventSpec(Value):
    """The event that a survival model foretells, and the times that it can be asked about."""

    key: Annotated[str, StringConstraints(pattern=SLUG, max_length=32)]
    label: str
    unit: Literal["h", "d", "wk", "mo", "a"] | None = None
    """Of the times, as of UCUM."""

    horizons: tuple[Horizon, ...] = Field(default=(), max_length=100)
    """Ends of the intervals of a model in discrete time, in their order; the first interval
    begins with the image. None of a model whose answer is a log hazard."""

    code: Code | None = None

    @model_validator(mode="after")
    def _times_are_intervals(self) -> "EventSpec":
        """Require times that follow each other, and their unit."""
        times = [each.time for each in self.horizons]
        if any(later <= time for time, later in pairwise(times)):
            raise ValueError("each of 'horizons' must be later than the one before it")
        if bool(times) != (self.unit is not None):
            raise ValueError("'horizons' need their 'unit', and without any there is none")
        return self

    @property
    def usable(self) -> tuple[float, ...]:
        """Times that may be asked for."""
        return tuple(each.time for each in self.horizons if each.not_for_use is None)

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """The event by each horizon, as a class of its own."""
        return tuple(
            ClassSpec(
                key=f"{self.key}-by-{each.time:.10g}{self.unit}",
                label=f"{self.label} by {each.time:.10g} {self.unit}",
                threshold=each.threshold,
                not_for_use=each.not_for_use,
                code=self.code,
            )
            for each in self.horizons
        )

    @property
    def values(self) -> tuple[ValueSpec, ...]:
        """The log hazard, of a model that gives one."""
        if self.horizons:
            return ()
        return (ValueSpec(key=f"{self.key}-risk", label=f"{self.label}, risk", code=self.code),)


class Output(Value):
    """One output tensor and its meaning."""

    name: Name = "logits"
    classes: tuple[ClassSpec, ...] = ()
    """Of classifications, segmentations and detections."""

    values: tuple[ValueSpec, ...] = ()
    """Of regressions; of a reconstruction its error."""

    event: EventSpec | None = None
    """Of survival models."""

    decoding: Literal[
        "logits",
        "voxel_classes",
        "voxel_regions",
        "boxes",
        "log_hazard",
        "hazards",
        "masses",
        "squared_error",
        "embedding",
    ] = "logits"
    """What is said of logits: at each pixel of a segmentation the class of the highest one
    (``voxel_classes``), or every class that reaches its threshold (``voxel_regions``); of a
    detection what `boxes` says (``boxes``).

    Of a survival model: its one number is the logarithm of the hazard, over that of anybody
    (``log_hazard``); a sigmoid of each is the probability of the event within an interval, for whom
    it spared until then (``hazards``); or a softmax over all gives the probability of each
    interval, the last one being the time beyond (``masses``).

    Of a reconstruction: the mean squared difference from the input (``squared_error``). Of an
    encoder: a vector (``embedding``)."""

    boxes: BoxDecoding | None = None
    """How the boxes of a detection are read."""
