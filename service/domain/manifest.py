"""``model.yaml``: everything the service must know of a model, strictly.

An unknown key is refused, so that a misspelt one is never silently ignored.
No code of a package is ever run: a manifest holds names out of closed lists.
"""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints, model_validator

from service.domain.target import ABOVE_THRESHOLD, ClassTarget, Target
from service.domain.value import Name, Sha256, Slug, Value, Version

RelativePath = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=200
    ),
]
"""A path inside the package; it cannot lead out of it."""


class File(Value):
    """A file of the package, bound by digest and size."""

    role: Literal["weights", "forward", "selftest"]
    format: Literal["safetensors", "onnx", "dicom", "npy"]
    path: RelativePath
    sha256: Sha256
    bytes: int = Field(gt=0)


class Architecture(Value):
    """A network constructor of the allow-list and its arguments."""

    name: Name
    parameters: dict[Name, JsonValue] = {}


class Accept(Value):
    """Which images the model was made for; an empty list accepts any value."""

    modalities: tuple[str, ...] = Field(min_length=1)
    body_parts: tuple[str, ...] = ()
    view_positions: tuple[str, ...] = ()
    photometric_interpretations: tuple[str, ...] = ("MONOCHROME1", "MONOCHROME2")


class StepChoice(Value):
    """A preprocessing step out of the closed set, with its parameters."""

    name: Name
    parameters: dict[Name, JsonValue] = {}


class Input(Value):
    """One input tensor and the way to it from modality values."""

    name: Name = "image"
    kind: Literal["image"] = "image"
    layout: Literal["NCHW"] = "NCHW"
    accept: Accept
    steps: tuple[StepChoice, ...] = Field(min_length=1)


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
    """Operating threshold, as a probability."""

    code: Code | None = None


class Output(Value):
    """One output tensor and its meaning."""

    name: Name = "logits"
    classes: tuple[ClassSpec, ...] = Field(min_length=1)


class Layer(Value):
    """A layer that CAM methods may use, by its name in each runtime."""

    name: str
    """Module path in torch."""

    onnx: str | None = None
    """Tensor name in the ONNX graph."""


class Explain(Value):
    """How the model is explained when the request does not say."""

    default_targets: tuple[Target, ...] = (ClassTarget(of=ABOVE_THRESHOLD),)
    layers: tuple[Layer, ...] = ()
    """Target layers of CAM methods; the first is the default."""

    baseline: float = 0.0
    """Reference value of a pixel, in model-input units."""


class SelfTest(Value):
    """An input of known answer, run whenever the model is loaded."""

    title: str
    input: RelativePath
    """A DICOM file of the package (role ``selftest``)."""

    logits: tuple[float, ...]
    tolerance: float = Field(gt=0, le=1)


class Manifest(Value):
    """A model package's ``model.yaml``."""

    schema_number: Literal[1] = 1
    id: Slug
    version: Version
    title: str
    publisher: str
    license: str
    """SPDX expression."""

    intended_use: str
    not_for: str
    task: Literal["classification-multilabel", "classification-multiclass"]
    activation: Literal["logits"] = "logits"
    """What the network puts out."""

    runtime: Literal["torch", "onnx"]
    """Which runtime serves the package."""

    architecture: Architecture | None = None
    files: tuple[File, ...] = Field(min_length=1)
    inputs: tuple[Input, ...] = Field(min_length=1, max_length=1)
    outputs: tuple[Output, ...] = Field(min_length=1, max_length=1)
    explain: Explain = Explain()
    selftests: tuple[SelfTest, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _files_fit_the_runtime(self) -> "Manifest":
        """Require what the chosen runtime loads."""
        if self.runtime == "torch" and self.architecture is None:
            raise ValueError("runtime 'torch' needs 'architecture'")
        wanted = {"torch": ("weights", "safetensors"), "onnx": ("forward", "onnx")}[self.runtime]
        if not any((file.role, file.format) == wanted for file in self.files):
            raise ValueError(f"runtime '{self.runtime}' needs a file with role and format {wanted}")
        known = {file.path for file in self.files}
        if missing := [test.input for test in self.selftests if test.input not in known]:
            raise ValueError(f"self-test inputs must be listed under 'files': {missing}")
        keys = [each.key for each in self.classes]
        if len(set(keys)) != len(keys):
            raise ValueError("class keys must differ")
        return self

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """Classes of the one output, in logit order."""
        return self.outputs[0].classes

    @property
    def ref(self) -> str:
        """``name@version``."""
        return f"{self.id}@{self.version}"

    def file(self, role: str, format_: str) -> File:
        """Return the first file of this role and format; `StopIteration` if there is none."""
        return next(f for f in self.files if (f.role, f.format) == (role, format_))
