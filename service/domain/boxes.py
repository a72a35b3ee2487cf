"""Detection: how a detector's outputs are read as boxes, and the boxes that were found."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from service.domain.value import TAG, Slug, Value
from service.domain.volume import Point

Share = Annotated[float, Field(gt=0, lt=1)]
Edge = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]
Anchor = Annotated[tuple[Edge, ...], Field(min_length=2, max_length=3)]
Step = Annotated[int, Field(ge=1, le=1024)]


def _form(value: Any) -> str:
    """Return the tag of a stride's form."""
    return f"{TAG}{'axes' if isinstance(value, (list, tuple)) else 'all'}"


Stride = Annotated[
    Annotated[Step, Tag(f"{TAG}all")]
    | Annotated[tuple[Step, ...], Field(min_length=2, max_length=3), Tag(f"{TAG}axes")],
    Discriminator(_form),
]
"""Alike along every axis, or one for each."""

Bounds = Annotated[tuple[float, ...], Field(min_length=4, max_length=6)]
"""Of an image top, left, bottom, right; of a volume first slice, top, left, then last slice,
bottom, right. The ends are past the end."""

STEPPED: Final = frozenset({"distances", "offset_size"})
"""Forms that tell a box relative to where its proposal stands."""

PLACED: Final = STEPPED | {"anchor_deltas"}
"""Forms of proposals that stand on a grid."""

EDGES: Final[Mapping[int, tuple[str, ...]]] = MappingProxyType(
    {
        4: ("top", "left", "bottom", "right"),
        6: ("first_slice", "top", "left", "end_slice", "bottom", "right"),
    }
)
"""Of a box, in the order of its numbers, by how many there are."""


class BoxDecoding(Value):
    """How one output tensor is read as proposals, each with a box and its scores."""

    layout: Literal["grid", "rows", "columns"]
    """Axes of one image's output: ``grid`` is (channels, rows, columns), of a volume (channels,
    slices, rows, columns), with a proposal to each cell, ``rows`` (proposals, channels),
    ``columns`` (channels, proposals)."""

    channels: tuple[Literal["box", "objectness", "classes"], ...] = ("box", "classes")
    """What stands along the channels, in order."""

    tensors: tuple[str, ...] = ()
    """Outputs of an ONNX graph that are laid one after the other along the channels; its first
    output alone if not given."""

    form: Literal["corners", "center_size", "distances", "offset_size", "anchor_deltas"]
    """The box's numbers: both corners; center and size; distances from the proposal's place to
    the sides, first the near ones; offset of the center from there and size; or shift and
    logarithm of the size of the proposal's anchor, as of RetinaNet."""

    unit: Literal["pixels", "shares", "strides"] = "pixels"
    """Of the numbers: the input's pixels, shares of its edges, or steps of the grid."""

    axes: Literal["xy", "yx", "xyz", "zyx"] = "xy"
    """In which order a box's numbers speak of the axes: x of the columns, y of the rows, and of a
    volume z of the slices, which are the input's last, last but one, and first axis."""

    strides: tuple[Stride, ...] = ()
    """Input pixels from proposal to proposal, of each grid: one number, or one for each axis,
    slices, rows, columns. Proposals come grid by grid, row by row, of a volume slice by slice."""

    place: float = Field(default=0.5, ge=0, le=1)
    """Where in its cell a proposal stands: 0 at the corner, as torchvision's anchors do, 0.5 in
    the middle."""

    anchors: tuple[tuple[Anchor, ...], ...] = ()
    """Of each grid the (height, width), of a volume (depth, height, width), in pixels of each of a
    cell's anchors, in their order."""

    scores: Literal["sigmoid", "softmax", "probabilities"]
    """What makes probabilities of the scores: a sigmoid of each, a softmax over all classes, or
    nothing, where they are probabilities already."""

    background: Literal["first", "last"] | None = None
    """Where a class that is none stands beside those of the manifest, if there is one."""

    overlap: Share = 0.5
    """Of boxes of one class that overlap by more than this (IoU) the best is kept."""

    match: Share = 0.5
    """Least overlap (IoU) of a proposal with the box that a request names."""

    @model_validator(mode="after")
    def _channels_are_once_each(self) -> "BoxDecoding":
        """Require boxes and classes, each in one place."""
        if sorted({*self.channels, "box", "classes"}) != sorted(self.channels):
            raise ValueError("'channels' needs 'box' and 'classes', each once")
        return self

    @model_validator(mode="after")
    def _places_fit_the_form(self) -> "BoxDecoding":
        """Require strides and anchors of the forms that are relative to them, and of no other."""
        if bool(self.strides) != (self.form in PLACED):
            raise ValueError(f"'strides' are for the forms {_words(PLACED)}, and they need them")
        if self.layout == "grid" and len(self.strides) > 1:
            raise ValueError("layout 'grid' has one grid, and so one of 'strides'")
        if self.unit == "strides" and self.form not in STEPPED:
            raise ValueError(f"unit 'strides' is for the forms {_words(STEPPED)}")
        grids = len(self.strides) if self.form == "anchor_deltas" else 0
        if len(self.anchors) != grids or not all(self.anchors):
            raise ValueError("form 'anchor_deltas' needs 'anchors' for each stride, no other any")
        if self.anchors and self.layout == "grid":
            raise ValueError("form 'anchor_deltas' needs layout 'rows' or 'columns'")
        return self

    @model_validator(mode="after")
    def _axes_are_all_spoken_of(self) -> "BoxDecoding":
        """Require strides and anchors of as many axes as the boxes have."""
        sizes = (*self.steps, *(anchor for grid in self.anchors for anchor in grid))
        if any(len(each) != self.rank for each in sizes):
            raise ValueError(
                f"boxes of axes '{self.axes}' need {self.rank} numbers for each of 'anchors', and"
                " for each of 'strides' as many or one"
            )
        return self

    @model_validator(mode="after")
    def _scores_go_together(self) -> "BoxDecoding":
        """Require that objectness and background suit what makes probabilities."""
        if self.scores == "softmax" and "objectness" in self.channels:
            raise ValueError("'objectness' goes with scores 'sigmoid' or 'probabilities'")
        if self.scores == "sigmoid" and self.background is not None:
            raise ValueError("'background' goes with scores 'softmax' or 'probabilities'")
        return self

    @property
    def rank(self) -> int:
        """Axes of a box: 2 of an image, 3 of a volume."""
        return len(self.axes)

    @property
    def steps(self) -> tuple[tuple[int, ...], ...]:
        """Input pixels from proposal to proposal along each axis, of each grid."""
        return tuple(
            each if isinstance(each, tuple) else (each,) * self.rank for each in self.strides
        )


def _words(forms: frozenset[str]) -> str:
    return ", ".join(f"'{each}'" for each in sorted(forms))


class ExpectedBox(Value):
    """A box that a self-test must find."""

    of: Slug
    """Key of its class."""

    box: Bounds
    """In pixels of the test's image, as of `Bounds`."""


class PatientBox(Value):
    """Where a box of a volume lies in the patient, in mm."""

    center: Point
    """In patient coordinates: x to the left, y to the back, z to the head."""

    size: tuple[float, float, float]
    """Edges along the volume's slices, rows and columns, which may lie aslant in the patient."""


class BoxWindows(Value):
    """Of a model that sees windows: those that the score of a box depends on."""

    count: int
    """One where a proposal is explained; all that overlap the box where its similarity is."""

    of: int
    """Windows of the image in all."""

    box: tuple[float, ...]
    """Where they lie together in source pixels, as of `Bounds`. Nothing outside has any influence,
    and the map is 0 there."""


class Detection(Value):
    """A box that the model found."""

    box: tuple[float, ...]
    """In source pixels, as of `Bounds`."""

    patient: PatientBox | None = None
    """Where it lies in the patient, of a volume."""

    logit: float
    """Log odds of `probability`, before any suppression."""

    probability: float
