"""The files of a model package, and what those are that show how it answers."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from service.domain.boxes import ExpectedBox
from service.domain.value import TAG, Name, Number, Sha256, Slug, Value
from service.domain.variable import Word

RelativePath = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=200
    ),
]
"""A path inside the package; it cannot lead out of it."""


Probability = Annotated[float, Field(ge=0, le=1)]


class File(Value):
    """A file of the package, bound by digest and size."""

    role: Literal[
        "weights", "forward", "selftest", "calibration", "region", "certificates", "precisions"
    ]
    format: Literal["safetensors", "onnx", "onnx_data", "dicom", "npy", "json"]
    path: RelativePath
    sha256: Sha256
    bytes: int = Field(gt=0)


class Calibration(Value):
    """Validation cases, on which methods are certified and calibrated for this model."""

    cases: RelativePath
    """A file of role ``calibration``: safetensors with ``images``, shape ``(N, C, *spatial)``,
    float, as the network takes them, and ``labels``, shape ``(N, classes)``, 1 where present."""

    synthetic: bool
    """Whether the cases are drawn and not taken of persons."""

    title: str
    """What the cases are, in one sentence."""


def _several(value: Any) -> str:
    """Return the tag of a self-test's input."""
    if isinstance(value, dict):
        return f"{TAG}views"
    return f"{TAG}images" if isinstance(value, list | tuple) else f"{TAG}file"


TestInput = Annotated[
    Annotated[RelativePath, Tag(f"{TAG}file")]
    | Annotated[dict[Name, RelativePath], Tag(f"{TAG}views")]
    | Annotated[tuple[RelativePath, ...], Tag(f"{TAG}images")],
    Discriminator(_several),
]
"""A file, one for each view, or the images of a bag."""


class SelfTest(Value):
    """An input of known answer, run whenever the model is loaded."""

    title: str
    input: TestInput
    """A DICOM file of the package (role ``selftest``); of several views one for each, by key;
    of a bag of images, a list of them."""

    values: dict[Slug, Number | Word] = {}
    """What stands beside the image, by variable, as a request gives it."""

    logits: tuple[Number, ...] = ()
    """What the network puts out; of a segmentation, each class's mean over the image; of a
    detection, the log odds of each class's best proposal."""

    probabilities: tuple[Probability, ...] = ()
    """In place of `logits`, likewise, of a network with ``activation: probabilities``."""

    boxes: tuple[ExpectedBox, ...] = ()
    """Of a detection: every box that must be found, and no other may be."""

    tolerance: float = Field(gt=0, le=1)

    @property
    def expected(self) -> tuple[float, ...]:
        """What the network puts out, in the numbers that it puts out."""
        return self.logits or self.probabilities

    @property
    def paths(self) -> tuple[RelativePath, ...]:
        """Its files."""
        if isinstance(self.input, str):
            return (self.input,)
        return tuple(self.input.values()) if isinstance(self.input, dict) else self.input
