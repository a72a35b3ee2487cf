"""The output of a model and the meaning of its numbers."""

from typing import Literal

from pydantic import Field, model_validator

from service.domain.boxes import BoxDecoding
from service.domain.value import Name, Slug, Value


class Code(Value):
    """A coded concept; all three parts or none."""

    system: Literal["SCT", "RADLEX", "LN", "DCM"]
    value: str
    meaning: str


class ClassSpec(Value):
    """One class of an output, in the order of the model's logits."""

    key: Slug
    label: str
    threshold: float | None = Field(default=None, ge=0, le=1)
    """Operating threshold, as a probability; of a detection, from which on a box is found."""

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


class Output(Value):
    """One output tensor and its meaning."""

    name: Name = "logits"
    classes: tuple[ClassSpec, ...] = ()
    """Of classifications, segmentations and detections."""

    values: tuple[ValueSpec, ...] = ()
    """Of regressions."""

    decoding: Literal["logits", "voxel_classes", "voxel_regions", "boxes"] = "logits"
    """What is said of logits: at each pixel of a segmentation the class of the highest one
    (``voxel_classes``), or every class that reaches its threshold (``voxel_regions``); of a
    detection what `boxes` says (``boxes``)."""

    boxes: BoxDecoding | None = None
    """How the boxes of a detection are read."""
