"""``model.yaml``: everything the service must know of a model, strictly.

An unknown key is refused, so that a misspelt one is never silently ignored.
No code of a package is ever run: a manifest holds names out of closed lists.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, JsonValue, StringConstraints, Tag, model_validator

from service.domain.boxes import BoxDecoding, ExpectedBox
from service.domain.canonical import digest_of
from service.domain.study import MOST_FRAMES
from service.domain.target import (
    DEFAULT_TARGETS,
    DetectionTarget,
    RegressionTarget,
    SegmentationTarget,
    Target,
)
from service.domain.value import TAG, Name, Sha256, Slug, Value, Version
from service.domain.variable import Number, Variable, Word
from service.domain.volume import Orientation

RelativePath = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=200
    ),
]
"""A path inside the package; it cannot lead out of it."""


class File(Value):
    """A file of the package, bound by digest and size."""

    role: Literal[
        "weights", "forward", "selftest", "calibration", "region", "certificates", "precisions"
    ]
    format: Literal["safetensors", "onnx", "onnx_data", "dicom", "npy", "json"]
    path: RelativePath
    sha256: Sha256
    bytes: int = Field(gt=0)


class Architecture(Value):
    """A network constructor of the allow-list and its arguments."""

    name: Name
    parameters: dict[Name, JsonValue] = {}


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


class KeyMap(Value):
    """How the names in a foreign file of weights become those of the network.

    Prefixes are stripped first, then whole parts are dropped, then renamed, then
    the layout is applied.
    """

    strip: tuple[str, ...] = ()
    """Prefixes to take off every name that has them, one after the other: ``module.``."""

    drop: tuple[str, ...] = ()
    """Beginnings of the names of tensors that the network has no use for."""

    rename: dict[str, str] = {}
    """Beginnings of names and what they become; the first that fits counts."""

    layout: Name | None = None
    """A published layout that the architecture knows: ``torchvision``, ``timm``, ``nnunet``."""


class HeadLayer(Value):
    """A layer of a replaced head."""

    kind: Literal["linear", "batch_norm", "layer_norm", "relu", "gelu", "tanh"]
    key: str | None = None
    """Its name in the file of weights, after stripping: ``classifier.0``."""

    features: int | None = Field(default=None, ge=1, le=65536)
    """How many numbers a linear layer puts out; the last one's are the classes."""

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> "HeadLayer":
        """Require names of what has weights, and the size of linear layers."""
        if self.kind in {"linear", "batch_norm", "layer_norm"} and self.key is None:
            raise ValueError(f"a layer of kind '{self.kind}' needs its 'key' in the weights")
        if (self.kind == "linear") != (self.features is not None):
            raise ValueError("a linear layer needs 'features', and no other kind has them")
        return self


class Head(Value):
    """Layers that stand in place of the network's own linear head."""

    layers: tuple[HeadLayer, ...] = Field(min_length=1, max_length=16)


class Accept(Value):
    """Which images the model was made for; an empty list accepts any value."""

    modalities: tuple[str, ...] = Field(min_length=1)
    body_parts: tuple[str, ...] = ()
    view_positions: tuple[str, ...] = ()
    lateralities: tuple[str, ...] = ()
    photometric_interpretations: tuple[str, ...] = ("MONOCHROME1", "MONOCHROME2")
    image_types: tuple[str, ...] = ()
    """Values that Image Type must hold, every one, such as ``ORIGINAL`` and ``AXIAL``."""

    volume: VolumeRules | None = None
    """Of a model that takes a series as one volume; `None` of one that takes an image."""


class StepChoice(Value):
    """A preprocessing step out of the closed set, with its parameters."""

    name: Name
    parameters: dict[Name, JsonValue] = {}


class Layer(Value):
    """A layer that methods may use, by its name in each runtime."""

    name: str
    """Module path in torch."""

    onnx: str | None = None
    """Tensor name in the ONNX graph."""


KEEPING: Final = frozenset(
    {"window", "normalize", "standardize", "invert_monochrome1", "suv", "resize"}
)
"""Steps that leave the slices of a volume as they are; of `resize`, if it is told so."""


class Bag(Value):
    """Slices that a model takes as the instances of a bag: in any number, each by itself."""

    attention: Layer | None = None
    """The layer that puts out the weight of each instance, shape ``(N, instances)``."""

    shown: int = Field(default=8, ge=1, le=32)
    """How many of the most relevant instances pictures show."""


class Input(Value):
    """One input tensor and the way to it from modality values."""

    name: Name = "image"
    kind: Literal["image", "volume"] = "image"
    layout: Literal["NCHW", "NHWC", "NCDHW"] = "NCHW"
    """Axes of a batch; D are the slices, until a step orients them otherwise.

    ``NHWC`` is for ONNX and remote models alone: they are given their channels last.
    """

    accept: Accept
    steps: tuple[StepChoice, ...] = Field(min_length=1)
    bag: Bag | None = None
    """Of a volume whose slices are instances; `None` of one that is seen as a whole."""

    @model_validator(mode="after")
    def _keeps_instances_apart(self) -> "Input":
        """Require of a bag that every slice reaches the model as it is."""
        if self.bag is None:
            return self
        if self.kind != "volume":
            raise ValueError("a bag is made of a volume's slices: 'kind' must be 'volume'")
        for step in self.steps:
            size = step.parameters.get("size")
            cut = isinstance(size, list) and size[0] is not None
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
        if (self.layout == "NCDHW", self.accept.volume is not None) != (volume, volume):
            raise ValueError("a volume needs layout NCDHW and 'accept.volume', an image neither")
        return self


TensorName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{1,200}$")]
"""A tensor of a graph."""


class TabularInput(Value):
    """One input tensor of numbers beside the image, shape ``(N, variables)``."""

    name: TensorName = "values"
    """Of an ONNX model, the graph's name for it."""

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


class Members(Value):
    """Networks of one architecture that answer together, such as the folds of a training."""

    weights: tuple[RelativePath, ...] = Field(min_length=2, max_length=16)
    """Their files, of role ``weights``."""

    combine: Literal["logits", "probabilities"] = "logits"
    """What the mean is taken of. What is explained is a logit in both cases: that of the mean
    probability, or its logarithm where classes exclude each other."""


class SlidingWindow(Value):
    """How a segmentation is given an image of any size: window by window, its answers blended."""

    size: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(min_length=2, max_length=3)
    """Cells of a window along each spatial axis of the prepared image.

    Along an axis where the image is smaller it is padded with zeros.
    """

    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Share of a window's edge that it has in common with the next one, at least."""

    blend: Literal["gaussian", "constant"] = "gaussian"
    """How windows count where they overlap: most at their centers, or alike."""

    convention: Literal["monai", "nnunet"] = "monai"
    """Whose windows these are to the cell: those of MONAI's ``sliding_window_inference``, or
    those of nnU-Net's predictor, which spreads them evenly."""


ServerWord = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""A name or a version on an inference server; safe in the path of an address."""

Share = Annotated[float, Field(ge=0, le=1)]
"""A length along an axis of the source image, as a share of its edge."""


class InnerRegion(Value):
    """All of the image but a border and the four corners."""

    kind: Literal["inner"] = "inner"
    border: float = Field(default=0.04, ge=0, lt=0.5)
    """Width of the border, as a share of each edge."""

    corner: float = Field(default=0.15, ge=0, lt=0.5)
    """Edge of each corner's square, as a share of each edge."""


class BoxRegion(Value):
    """A box of the source image."""

    kind: Literal["box"]
    top: Share
    left: Share
    bottom: Share
    right: Share

    @model_validator(mode="after")
    def _holds_something(self) -> "BoxRegion":
        """Require that the box is no line."""
        if not (self.top < self.bottom and self.left < self.right):
            raise ValueError("the box needs top < bottom and left < right")
        return self


class MaskRegion(Value):
    """A mask of the package, laid over the whole source image."""

    kind: Literal["mask"]
    path: RelativePath
    """A file of role ``region``: NPY, bool or 0 and 1, shape ``(rows, columns)`` of any size."""


Region = Annotated[InnerRegion | BoxRegion | MaskRegion, Field(discriminator="kind")]
"""Where in a source image the model may find what it reports."""


class Remote(Value):
    """Where a model runs that the package does not hold: a server of the Open Inference Protocol.

    The protocol's version 2 over HTTP, as Triton, KServe, MLServer and others speak it.
    """

    endpoint: str = Field(min_length=1, max_length=200)
    """The server, by its name in the administrator's list or by its address there."""

    model: ServerWord
    """The model's name on the server."""

    model_version: ServerWord | None = None
    """The version to ask; the server's choice if not given."""

    input: str = Field(min_length=1, max_length=200)
    """Name of the tensor that takes the image."""

    output: str = Field(min_length=1, max_length=200)
    """Name of the tensor to explain."""

    datatype: Literal["FP16", "FP32", "FP64"] = "FP32"
    """Of both tensors, by the protocol's word."""

    rows: int = Field(default=32, ge=1, le=1024)
    """Most images in one request."""

    tolerance: float = Field(default=1e-3, gt=0, le=1)
    """How far the server's answer to one and the same input may move, counted as in `surrogate`."""


class Calibration(Value):
    """Validation cases, on which methods are certified and calibrated for this model."""

    cases: RelativePath
    """A file of role ``calibration``: safetensors with ``images``, shape ``(N, C, *spatial)``,
    float, as the network takes them, and ``labels``, shape ``(N, classes)``, 1 where present."""

    synthetic: bool
    """Whether the cases are drawn and not taken of persons."""

    title: str
    """What the cases are, in one sentence."""


class Explain(Value):
    """How the model is explained when the request does not say."""

    default_targets: tuple[Target, ...] = Field(default=DEFAULT_TARGETS, min_length=1)
    """If not given: what is above its threshold, each value, or each class's predicted mask."""

    layers: tuple[Layer, ...] = ()
    """Target layers of CAM methods; the first is the default."""

    baseline: float = 0.0
    """Reference value of a pixel, in model-input units."""

    expected_region: Region | None = None
    """Where evidence may lie; that the score needs what is outside is reported."""


class Surrogate(Value):
    """How nearly a network that stands in for the original must say what that says."""

    tolerance: float = Field(default=1e-3, gt=0, le=1)
    """Largest difference of a logit, as a share of the largest logit, or of 1 if that is less."""

    def difference(self, original: Sequence[float], surrogate: Sequence[float]) -> float:
        """Return the largest difference of two answers, counted as `tolerance` is."""
        largest = max(1.0, *(abs(each) for each in original))
        pairs = zip(original, surrogate, strict=True)
        apart = [abs(a - b) / largest for a, b in pairs]
        return math.inf if any(map(math.isnan, apart)) else max(apart)


class SelfTest(Value):
    """An input of known answer, run whenever the model is loaded."""

    title: str
    input: RelativePath
    """A DICOM file of the package (role ``selftest``)."""

    values: dict[Slug, Number | Word] = {}
    """What stands beside the image, by variable, as a request gives it."""

    logits: tuple[float, ...]
    """What the network puts out; of a segmentation, each class's mean over the image; of a
    detection, the log odds of each class's best proposal."""

    boxes: tuple[ExpectedBox, ...] = ()
    """Of a detection: every box that must be found, and no other may be."""

    tolerance: float = Field(gt=0, le=1)


DECODINGS = {"segmentation": ("voxel_classes", "voxel_regions"), "detection": ("boxes",)}
"""By task; of others the logits themselves are what is said."""

LOADED = {"torch": ("weights", "safetensors"), "onnx": ("forward", "onnx")}
"""Role and format of the file that each runtime loads; one that loads none is not here."""


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
    task: Literal[
        "classification-multilabel",
        "classification-multiclass",
        "regression",
        "segmentation",
        "detection",
    ]
    activation: Literal["logits"] = "logits"
    """What the network puts out."""

    runtime: Literal["torch", "onnx", "remote"]
    """Which runtime serves the package."""

    remote: Remote | None = None
    """Where the model runs, of runtime ``remote``."""

    architecture: Architecture | None = None
    key_map: KeyMap = KeyMap()
    """How the weights' names become the network's; for weights from elsewhere."""

    head: Head | None = None
    """What stands in place of the network's own head, if something does."""

    files: tuple[File, ...] = Field(min_length=1)
    members: Members | None = None
    """Without it the first file of weights is the model."""

    inputs: tuple[AnyInput, ...] = Field(min_length=1, max_length=8)
    """The image first, then numbers beside it, in the order in which the network takes them."""

    outputs: tuple[Output, ...] = Field(min_length=1, max_length=1)
    sliding_window: SlidingWindow | None = None
    """Without it the network is given the prepared image whole."""

    explain: Explain = Explain()
    surrogate: Surrogate = Surrogate()
    calibration: Calibration | None = None
    """Without it no method can be certified for this model."""

    selftests: tuple[SelfTest, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _inputs_go_together(self) -> "Manifest":
        """Require one image, and of what stands beside it that it can be told apart."""
        first, *others = self.inputs
        if not isinstance(first, Input) or any(isinstance(each, Input) for each in others):
            raise ValueError("'inputs' needs one image or volume first, and others of kind tabular")
        names = [each.name for each in self.inputs]
        keys = [each.key for each in self.variables]
        if len(set(names)) < len(names) or len(set(keys)) < len(keys):
            raise ValueError("names of 'inputs', and keys of their variables, must differ")
        if self.variables and self.runtime == "remote":
            raise ValueError("a model on a server takes an image alone")
        if self.variables and self.calibration:
            raise ValueError("'calibration' holds images alone: leave it out beside tabular inputs")
        if self.variables and (self.members or self.sliding_window):
            raise ValueError("members and sliding windows are for models of an image alone")
        return self

    @model_validator(mode="after")
    def _bags_are_of_one_answer(self) -> "Manifest":
        """Require of a bag what its instances can be asked about."""
        bag = self.image.bag
        if bag is None:
            return self
        if self.task in {"segmentation", "detection"}:
            raise ValueError("a bag has one answer: its task is a classification or a regression")
        if self.calibration or self.members or self.sliding_window or self.variables:
            raise ValueError(
                "'calibration', 'members', 'sliding_window' and tabular inputs are for models"
                " without a bag"
            )
        if self.runtime == "remote":
            raise ValueError("a model on a server takes an image or a volume as a whole, not a bag")
        if bag.attention and not self.explain.layers:
            raise ValueError("a bag's 'attention' needs 'explain.layers' beside it")
        return self

    @model_validator(mode="after")
    def _selftests_give_values(self) -> "Manifest":
        """Require of every self-test what stands beside its image."""
        keys = {each.key for each in self.variables}
        for test in self.selftests:
            if set(test.values) != keys:
                raise ValueError(
                    f"each self-test needs 'values' of just these keys: {sorted(keys)}"
                )
            for each in self.variables:
                each.number(test.values[each.key])
        return self

    @model_validator(mode="after")
    def _files_fit_the_runtime(self) -> "Manifest":
        """Require what the chosen runtime loads."""
        if self.runtime == "torch" and self.architecture is None:
            raise ValueError("runtime 'torch' needs 'architecture'")
        if self.runtime == "torch" and self.image.layout == "NHWC":
            raise ValueError("layout NHWC is for the runtimes 'onnx' and 'remote' alone")
        if (self.runtime == "remote") != (self.remote is not None):
            raise ValueError("runtime 'remote' needs 'remote', and no other runtime has it")
        wanted = LOADED.get(self.runtime)
        if wanted and not any((file.role, file.format) == wanted for file in self.files):
            raise ValueError(f"runtime '{self.runtime}' needs a file with role and format {wanted}")
        known = {file.path for file in self.files}
        if missing := [test.input for test in self.selftests if test.input not in known]:
            raise ValueError(f"self-test inputs must be listed under 'files': {missing}")
        return self

    @model_validator(mode="after")
    def _outputs_fit_the_task(self) -> "Manifest":
        """Require what the task puts out, and nothing else."""
        output, decodings = self.outputs[0], DECODINGS.get(self.task, ("logits",))
        named, others = (
            ("values", output.classes) if self.task == "regression" else ("classes", output.values)
        )
        if others or not self.named:
            raise ValueError(f"an output of task '{self.task}' needs '{named}', and they alone")
        if output.decoding not in decodings:
            words = " or ".join(f"'{each}'" for each in decodings)
            raise ValueError(f"an output of task '{self.task}' needs decoding {words}")
        keys = [each.key for each in self.named]
        if len(set(keys)) != len(keys):
            raise ValueError(f"keys of {named} must differ")
        if all(each.not_for_use is not None for each in self.named):
            raise ValueError(f"at least one of the {named} must be for use")
        if self.calibration and not self.task.startswith("classification"):
            raise ValueError("'calibration' is for classifications alone")
        return self

    @model_validator(mode="after")
    def _windows_fit_the_input(self) -> "Manifest":
        """Require that windows are of a segmentation and have the axes of its input."""
        if self.sliding_window is None:
            return self
        if self.task != "segmentation":
            raise ValueError("'sliding_window' is for segmentations alone")
        axes = len(self.image.layout) - 2
        if len(self.sliding_window.size) != axes:
            raise ValueError(f"'sliding_window.size' needs one number for each of {axes} axes")
        return self

    @model_validator(mode="after")
    def _members_fit_the_runtime(self) -> "Manifest":
        """Require that every member is among the files, once, and can be one."""
        if self.members is None:
            return self
        if self.runtime != "torch":
            raise ValueError("'members' are for runtime 'torch' alone")
        if self.task == "regression" and self.members.combine != "logits":
            raise ValueError("a regression has no probabilities to combine")
        listed = {file.path for file in self.files if (file.role, file.format) == LOADED["torch"]}
        if missing := sorted(set(self.members.weights) - listed):
            raise ValueError(f"'members' need files of role 'weights', safetensors: {missing}")
        if len(set(self.members.weights)) != len(self.members.weights):
            raise ValueError("every member needs weights of its own")
        return self

    @model_validator(mode="after")
    def _boxes_can_be_read(self) -> "Manifest":
        """Require of a detection how its boxes are read, and from which score on they count."""
        boxes = self.outputs[0].boxes
        if (boxes is not None) != (self.task == "detection"):
            raise ValueError("an output of task 'detection' needs 'boxes', and no other has it")
        if boxes is None:
            if any(test.boxes for test in self.selftests):
                raise ValueError("self-tests have 'boxes' of task 'detection' alone")
            return self
        if self.inputs[0].kind != "image":
            raise ValueError("boxes are found in images: task 'detection' takes no volume")
        if boxes.tensors and self.runtime != "onnx":
            raise ValueError("'tensors' are outputs of a graph, of runtime 'onnx' alone")
        if self.members is not None:
            raise ValueError("the boxes of several members cannot be averaged")
        keys = {each.key for each in self.classes}
        if any(each.of not in keys for test in self.selftests for each in test.boxes):
            raise ValueError("the boxes of self-tests must be of the classes of 'outputs'")
        if any(each.threshold is None for each in self.classes):
            raise ValueError("each class of a detection needs the 'threshold' of its boxes")
        if boxes.scores == "softmax" and boxes.background is None and len(self.classes) == 1:
            raise ValueError("a softmax over one class is always 1; name its 'background'")
        return self

    @model_validator(mode="after")
    def _named_files_are_listed(self) -> "Manifest":
        """Require that what the trust report needs is among the files, in its form."""
        listed = {(file.path, file.role, file.format) for file in self.files}
        region, calibration = self.explain.expected_region, self.calibration
        if isinstance(region, MaskRegion) and (region.path, "region", "npy") not in listed:
            raise ValueError("the mask of 'expected_region' must be a file of role 'region', npy")
        if calibration and (calibration.cases, "calibration", "safetensors") not in listed:
            raise ValueError("'calibration' needs a file of role 'calibration', safetensors")
        return self

    @property
    def image(self) -> Input:
        """The input that is an image or a volume."""
        return next(each for each in self.inputs if isinstance(each, Input))

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers that are looked into: those of methods, and a bag's attention."""
        bag = self.image.bag
        attention = () if bag is None or bag.attention is None else (bag.attention,)
        return (*self.explain.layers, *attention)

    @property
    def tabular(self) -> tuple[TabularInput, ...]:
        """The inputs beside it, in the network's order."""
        return tuple(each for each in self.inputs if isinstance(each, TabularInput))

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The numbers of all inputs beside the image, in their order."""
        return tuple(each for tensor in self.tabular for each in tensor.variables)

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """Classes of the one output, in logit order; none of a regression."""
        return self.outputs[0].classes

    @property
    def values(self) -> tuple[ValueSpec, ...]:
        """Values of a regression, in the order of its outputs."""
        return self.outputs[0].values

    @property
    def named(self) -> "tuple[ClassSpec, ...] | tuple[ValueSpec, ...]":
        """Classes or values of the one output, in its order."""
        return self.outputs[0].classes or self.outputs[0].values

    @property
    def default_targets(self) -> tuple[Target, ...]:
        """What is explained when the request does not say."""
        if "default_targets" in self.explain.model_fields_set:
            return self.explain.default_targets
        keys = [each.key for each in self.named if each.not_for_use is None]
        if self.task == "regression":
            return tuple(RegressionTarget(kind="regression", of=key) for key in keys)
        if self.task == "segmentation":
            return tuple(SegmentationTarget(kind="segmentation", of=key) for key in keys)
        if self.task == "detection":
            return tuple(DetectionTarget(kind="detection", of=key) for key in keys)
        return DEFAULT_TARGETS

    @property
    def ref(self) -> str:
        """``name@version``."""
        return f"{self.id}@{self.version}"

    @property
    def weights(self) -> str | None:
        """SHA-256 of the file that the runtime loads; of several, of all their digests.

        `None` of a model that runs elsewhere: nobody here has seen its weights.
        """
        if self.runtime == "remote":
            return None
        if self.members is not None:
            digests = {file.path: file.sha256 for file in self.files}
            return digest_of([digests[path] for path in self.members.weights])
        if self.runtime == "torch":
            return self.file("weights", "safetensors").sha256
        model = self.file("forward", "onnx").sha256
        data = [file.sha256 for file in self.files if file.format == "onnx_data"]
        return digest_of([model, *data]) if data else model

    @property
    def weight_bytes(self) -> int:
        """Size of all files of weights and graphs."""
        return sum(each.bytes for each in self.files if each.role in {"weights", "forward"})

    def file(self, role: str, format_: str) -> File:
        """Return the first file of this role and format; `StopIteration` if there is none."""
        return next(f for f in self.files if (f.role, f.format) == (role, format_))
