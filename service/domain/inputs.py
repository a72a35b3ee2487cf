"""The inputs of a model: which images it was made for, and the way to its tensors."""

from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, JsonValue, StringConstraints, Tag, model_validator

from service.domain.network import Layer
from service.domain.study import MOST_FRAMES
from service.domain.value import TAG, Name, Value
from service.domain.variable import Variable
from service.domain.view import MOST_IMAGES, View, demand_apart
from service.domain.volume import Orientation

PresentationIntent = Literal["FOR PRESENTATION", "FOR PROCESSING"]
"""Values of Presentation Intent Type (PS3.3 C.8.11.1)."""

Range = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0)]]
"""Least and greatest, both allowed."""


class VolumeRules(Value):
    """Which volumes the model was made for, beside the rules for their slices."""

    least_slices: int = Field(default=8, ge=2, le=MOST_FRAMES)
    orientations: tuple[Orientation, ...] = ()
    """Planes that the slices may be nearest to; empty for any."""

    slice_spacing: Range | None = None
    """Of the steps from slice to slice, in mm along the normal."""

    pixel_spacing: Range | None = None
    """Of the pixels' spacing along either axis, in mm."""

    sheared: bool = False
    """Whether slices may lie aslant, as of a tilted gantry; the model sees them as stored."""


class Accept(Value):
    """Which images the model was made for; an empty list accepts any value."""

    modalities: tuple[str, ...] = Field(min_length=1)
    body_parts: tuple[str, ...] = ()
    view_positions: tuple[str, ...] = ()
    lateralities: tuple[str, ...] = ()
    photometric_interpretations: tuple[str, ...] = ("MONOCHROME1", "MONOCHROME2")
    image_types: tuple[str, ...] = ()
    """Values that Image Type must hold, every one, such as ``ORIGINAL`` and ``AXIAL``."""

    presentation_intents: tuple[PresentationIntent, ...] = Field(
        default=("FOR PRESENTATION",), min_length=1
    )
    """Of digital X-rays: whether as they are shown, or raw, to be processed first. An image that
    does not say is as it is shown."""

    volume: VolumeRules | None = None
    """Of a model that takes a series as one volume; `None` of one that takes an image."""


class StepChoice(Value):
    """A preprocessing step out of the closed set, with its parameters."""

    name: Name
    parameters: dict[Name, JsonValue] = {}


KEEPING: Final = frozenset(
    {"window", "normalize", "standardize", "invert_monochrome1", "suv", "resize"}
)
"""Steps that leave the slices of a volume as they are; of `resize`, if it is told so."""


class ImageCount(Value):
    """How many single images of a study a bag may hold."""

    least: int = Field(default=2, ge=2, le=MOST_IMAGES)
    most: int = Field(default=16, ge=2, le=MOST_IMAGES)

    @model_validator(mode="after")
    def _is_a_range(self) -> "ImageCount":
        if self.least > self.most:
            raise ValueError("'least' must not be over 'most'")
        return self


class Bag(Value):
    """What a model takes as the instances of a bag: in any number, each by itself.

    They are the slices of a volume, or single images of a study.
    """

    images: ImageCount | None = None
    """Of single images, how many; `None` of the slices of a volume."""

    attention: Layer | None = None
    """The layer that puts out the weight of each instance, shape ``(N, instances)``."""

    shown: int = Field(default=8, ge=1, le=32)
    """How many of the most relevant instances pictures show; of single images, how many are
    key images."""


class Input(Value):
    """One input tensor and the way to it from modality values."""

    name: Name = "image"
    kind: Literal["image", "volume"] = "image"
    layout: Literal["NCHW", "NHWC", "NCDHW"] = "NCHW"
    """Axes of a batch; D are the slices, until a step orients them otherwise, or several images.

    ``NHWC`` is for ONNX and remote models alone: they are given their channels last.
    """

    accept: Accept
    steps: tuple[StepChoice, ...] = Field(min_length=1)
    bag: Bag | None = None
    """Of slices or images that are instances; `None` of what is seen as a whole."""

    views: tuple[View, ...] = ()
    """Of several images that are seen at once, in the order of the axis D; empty of one."""

    @model_validator(mode="after")
    def _keeps_instances_apart(self) -> "Input":
        """Require of a bag of slices that every one reaches the model as it is."""
        if self.bag is None:
            return self
        if (self.kind == "volume") != (self.images is None):
            raise ValueError(
                "a bag is made of a volume's slices, or of single images: give 'kind' volume, or"
                " 'bag.images'"
            )
        if self.images is not None:  # each has its own steps' grid
            return self
        for step in self.steps:
            size = step.parameters.get("size")
            cut = isinstance(size, list) and size[:1] != [None]
            if step.name not in KEEPING or cut:
                raise ValueError(
                    "steps of a bag must keep its slices: one of"
                    f" {', '.join(sorted(KEEPING))}, and 'resize' with null in front"
                )
        return self

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> "Input":
        """Require that kind, layout and rules speak of the same."""
        volume = self.kind == "volume"
        if self.views:
            demand_apart(self.views)
            if self.bag is not None:
                raise ValueError("'views' are told apart, a bag's images are not: give one of both")
        if self.several:
            if volume or self.accept.volume is not None or self.layout != "NCDHW":
                raise ValueError(
                    "'views', and the 'images' of a bag, are images: 'kind' image, layout NCDHW,"
                    " no volume"
                )
        elif (self.layout == "NCDHW", self.accept.volume is not None) != (volume, volume):
            raise ValueError("a volume needs layout NCDHW and 'accept.volume', an image neither")
        return self

    @property
    def images(self) -> ImageCount | None:
        """Of a bag of single images, how many it may hold; `None` of all else."""
        return None if self.bag is None else self.bag.images

    @property
    def several(self) -> bool:
        """Whether the model sees several images at once, each of which has maps of its own."""
        return bool(self.views) or self.images is not None


TensorName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{1,200}$")]
"""A tensor of a graph."""


class TabularInput(Value):
    """One input tensor of numbers beside the image, shape ``(N, variables)``."""

    name: TensorName = "values"
    """Of an ONNX model, the graph's name for it; of one on a server, the server's."""

    kind: Literal["tabular"]
    variables: tuple[Variable, ...] = Field(min_length=1, max_length=64)


def _kind(value: Any) -> str:
    """Return the tag of an input's kind; what does not say is an image."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return f"{TAG}tabular" if kind == "tabular" else f"{TAG}image"


AnyInput = Annotated[
    Annotated[Input, Tag(f"{TAG}image")] | Annotated[TabularInput, Tag(f"{TAG}tabular")],
    Discriminator(_kind),
]


class SlidingWindow(Value):
    """How a network is given an image of any size: window by window."""

    size: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(min_length=2, max_length=3)
    """Cells of a window along each spatial axis of the prepared image.

    Along an axis where the image is smaller it is padded with zeros.
    """

    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Share of a window's edge that it has in common with the next one, at least."""

    blend: Literal["gaussian", "constant", "none"] = "gaussian"
    """How windows of a segmentation count where they overlap: most at their centers, or alike. Of a
    detection `none`: the boxes of all windows are gathered, and suppressed together."""

    convention: Literal["monai", "nnunet"] = "monai"
    """Whose windows these are to the cell: those of MONAI's ``sliding_window_inference``, or
    those of nnU-Net's predictor, which spreads them evenly."""
