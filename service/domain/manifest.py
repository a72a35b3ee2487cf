"""``model.yaml``: everything the service must know of a model, strictly.

An unknown key is refused, so that a misspelt one is never silently ignored.
No code of a package is ever run: a manifest holds names out of closed lists.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, TypeAdapter, model_validator

from service.domain.canonical import digest_of
from service.domain.files import Calibration, File, SelfTest
from service.domain.inputs import AnyInput, ImageCount, Input, SlidingWindow, TabularInput
from service.domain.network import Architecture, Head, KeyMap, Layer, Members, Remote, Surrogate
from service.domain.outputs import ClassSpec, EventSpec, Output, ValueSpec
from service.domain.regions import MaskRegion, Region
from service.domain.target import (
    ABOVE_THRESHOLD,
    DEFAULT_TARGETS,
    KINDS,
    REST,
    TOP1,
    ClassTarget,
    EmbeddingTarget,
    Target,
    TimeToEventTarget,
)
from service.domain.value import Slug, Value, Version
from service.domain.variable import Variable

_TARGET: TypeAdapter[Target] = TypeAdapter(Target)


class Explain(Value):
    """How the model is explained when the request does not say."""

    default_targets: tuple[Target, ...] = Field(default=DEFAULT_TARGETS, min_length=1)
    """If not given: what is above its threshold, each value, or each class's predicted mask.

    Of classes that exclude each other and have no thresholds, the likeliest.
    """

    layers: tuple[Layer, ...] = ()
    """Target layers of CAM methods; the first is the default."""

    baseline: float = 0.0
    """Reference value of a pixel, in model-input units."""

    expected_region: Region | None = None
    """Where evidence may lie; that the score needs what is outside is reported."""


DECODINGS = {
    "segmentation": ("voxel_classes", "voxel_regions"),
    "detection": ("boxes",),
    "survival": ("log_hazard", "hazards", "masses"),
    "reconstruction": ("squared_error",),
    "embedding": ("embedding",),
}
"""By task; of others the logits themselves are what is said."""

NAMED = {"regression": "values", "survival": "event", "reconstruction": "values"}
"""What the outputs of a task name; of the others it is `classes`, and of an encoder nothing."""

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
        "survival",
        "reconstruction",
        "embedding",
    ]
    activation: Literal["logits", "probabilities"] = "logits"
    """What the network puts out; with ``probabilities`` a sigmoid or softmax is part of it."""

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
        if self.remote is not None and self.remote.input in {each.name for each in self.tabular}:
            raise ValueError("'remote.input' is the image's tensor; tabular inputs have others")
        if self.variables and self.calibration:
            raise ValueError("'calibration' holds images alone: leave it out beside tabular inputs")
        return self

    @model_validator(mode="after")
    def _bags_are_of_one_answer(self) -> "Manifest":
        """Require of a bag what its instances can be asked about."""
        bag = self.image.bag
        if bag is None:
            return self
        if self.task in {"segmentation", "detection"}:
            raise ValueError("a bag has one answer: its task is a classification or a regression")
        if self.calibration:
            raise ValueError(
                "'calibration' holds inputs of one shape, and bags are of any: leave it out"
            )
        if bag.images is not None:
            self._tests_hold_a_bag(bag.images)
        if bag.attention and (self.members or self.runtime == "remote"):
            raise ValueError(
                "a bag's 'attention' is a layer of one network that runs here: leave it out of"
                " 'members', and of a model on a server"
            )
        if bag.attention and not self.explain.layers:
            raise ValueError("a bag's 'attention' needs 'explain.layers' beside it")
        return self

    def _tests_hold_a_bag(self, images: ImageCount) -> None:
        """Require of every self-test as many images as a bag may hold."""
        for test in self.selftests:
            if not isinstance(test.input, tuple) or not (
                images.least <= len(test.input) <= images.most
            ):
                raise ValueError(
                    "each self-test of a bag of images needs a list of files as its 'input', from"
                    f" {images.least} to {images.most}"
                )

    @model_validator(mode="after")
    def _views_are_of_one_answer(self) -> "Manifest":
        """Require of several views what all of them can be asked about."""
        keys = [each.key for each in self.image.views]
        for test in self.selftests if self.image.images is None else ():
            named = sorted(test.input) if isinstance(test.input, dict) else []
            if named != sorted(keys) or isinstance(test.input, tuple):
                raise ValueError(
                    "each self-test needs one 'input', and of several views a file for each of"
                    f" these keys: {sorted(keys)}"
                )
        if not keys:
            return self
        if self.task in {"segmentation", "detection"}:
            raise ValueError("views have one answer: a classification or a regression")
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
        inputs = [path for test in self.selftests for path in test.paths]
        if missing := [path for path in inputs if path not in known]:
            raise ValueError(f"self-test inputs must be listed under 'files': {missing}")
        return self

    @model_validator(mode="after")
    def _outputs_fit_the_task(self) -> "Manifest":
        """Require what the task puts out, and nothing else."""
        output, decodings = self.outputs[0], DECODINGS.get(self.task, ("logits",))
        named = NAMED.get(self.task, "classes")
        said = {"classes": output.classes, "values": output.values, "event": output.event}
        content = [each for each, told in said.items() if told]
        if self.task == "embedding" and content:
            raise ValueError("an output of task 'embedding' is its vector: name nothing of it")
        if self.task != "embedding" and content != [named]:
            raise ValueError(f"an output of task '{self.task}' needs '{named}', and they alone")
        if output.decoding not in decodings:
            words = " or ".join(f"'{each}'" for each in decodings)
            raise ValueError(f"an output of task '{self.task}' needs decoding {words}")
        if self.task == "reconstruction" and len(output.values) > 1:
            raise ValueError("a reconstruction has one error: name one of 'values'")
        if output.event and bool(output.event.horizons) != (output.decoding != "log_hazard"):
            raise ValueError(
                "an 'event' of decoding 'hazards' or 'masses' needs its 'horizons', and of"
                " 'log_hazard' has none"
            )
        if self.named and all(each.not_for_use is not None for each in self.named):
            raise ValueError(f"at least one of the {named} must be for use")
        if self.calibration and not self.task.startswith("classification"):
            raise ValueError("'calibration' is for classifications alone")
        return self

    @model_validator(mode="after")
    def _outputs_can_be_asked_for(self) -> "Manifest":
        """Require keys that differ and are no words of targets, and classes that have a rival."""
        keys = [each.key for each in self.named]
        if len(set(keys)) != len(keys):
            raise ValueError(f"keys of {NAMED.get(self.task, 'classes')} must differ")
        if words := sorted({TOP1, ABOVE_THRESHOLD, REST}.intersection(keys)):
            raise ValueError(f"targets have a meaning of their own for {words}: choose other keys")
        if self.task == "classification-multiclass" and len(keys) == 1:
            raise ValueError(
                "one class excludes no other: two outcomes of one logit are a task"
                " 'classification-multilabel' with one class"
            )
        return self

    @model_validator(mode="after")
    def _selftests_fit_the_activation(self) -> "Manifest":
        """Require of self-tests the numbers that the network puts out."""
        if self.activation == "probabilities" and not self.decides:
            raise ValueError(
                "'activation: probabilities' is for classifications, segmentations, and the"
                " hazards or masses of an event; how scores of boxes are read stands in 'boxes'"
            )
        others = {"logits", "probabilities"} - {self.activation}
        for test in self.selftests:
            if not test.expected or any(getattr(test, each) for each in others):
                raise ValueError(
                    f"each self-test needs '{self.activation}', as 'activation' says, and they"
                    " alone"
                )
        return self

    @model_validator(mode="after")
    def _embeddings_are_of_one_image(self) -> "Manifest":
        """Require of an encoder that another image can stand beside the one explained."""
        if self.task != "embedding":
            return self
        image = self.image
        several = bool(image.views) or image.bag is not None or image.accept.volume is not None
        if several or self.tabular:
            raise ValueError("an embedding is of one image alone: no views, bag, volume or values")
        return self

    @model_validator(mode="after")
    def _windows_fit_the_input(self) -> "Manifest":
        """Require of windows that they fit the task, and have the axes of the input."""
        if self.sliding_window is None:
            return self
        if self.task not in {"segmentation", "detection"}:
            raise ValueError("'sliding_window' is for segmentations and detections alone")
        if (self.sliding_window.blend == "none") != (self.task == "detection"):
            raise ValueError(
                "'sliding_window.blend' of a detection is 'none', and of a segmentation another:"
                " boxes of windows are not blended, but suppressed together"
            )
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
        if self.task in {*NAMED, "embedding"} and self.members.combine != "logits":
            raise ValueError(f"members of task '{self.task}' are combined by their logits alone")
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
    def _boxes_have_the_axes_of_the_input(self) -> "Manifest":
        """Require of boxes that they are in an image or a volume, as the input is."""
        boxes, rank = self.outputs[0].boxes, len(self.image.layout) - 2
        if boxes is None:
            return self
        if boxes.rank != rank:
            raise ValueError(
                f"'axes' of 'boxes' names {boxes.rank} axes, and the input has {rank}: 'xy' or 'yx'"
                " are for images, 'xyz' or 'zyx' for volumes"
            )
        if any(len(each.box) != 2 * rank for test in self.selftests for each in test.boxes):
            raise ValueError(f"the boxes of self-tests need {2 * rank} numbers each")
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

    def explained(self, inputs: str | Sequence[str]) -> tuple[bool, ...]:
        """Tell of each variable whether a request's `inputs` have the score shared out to it."""
        return tuple(
            inputs == "all" or tensor.name in inputs
            for tensor in self.tabular
            for _ in tensor.variables
        )

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """Classes of the one output, in logit order; of a survival model its event by each time."""
        output = self.outputs[0]
        return output.event.classes if output.event else output.classes

    @property
    def values(self) -> tuple[ValueSpec, ...]:
        """Values of a regression, in the order of its outputs; of a survival model its risk."""
        output = self.outputs[0]
        return output.event.values if output.event else output.values

    @property
    def named(self) -> "tuple[ClassSpec, ...] | tuple[ValueSpec, ...]":
        """Classes or values of the one output, in its order."""
        return self.classes or self.values

    @property
    def width(self) -> int:
        """How many numbers the network gives; of a segmentation, at each pixel."""
        if self.task == "embedding":  # its self-tests alone tell
            return len(self.selftests[0].expected)
        return len(self.named) + (self.outputs[0].decoding == "masses")

    @property
    def decides(self) -> bool:
        """Whether its outputs are logits: of classes, by pixel or by image, or of times."""
        timed = self.outputs[0].decoding in {"hazards", "masses"}
        return timed or self.task == "segmentation" or self.task.startswith("classification")

    @property
    def decided(self) -> bool:
        """Whether some class that may be asked for has a threshold to be above."""
        return any(each.threshold is not None for each in self.classes if not each.not_for_use)

    @property
    def exclusive(self) -> bool:
        """Whether what is said excludes each other, so that probabilities are a softmax's."""
        told = self.outputs[0].decoding in {"voxel_classes", "masses"}
        return told or self.task == "classification-multiclass"

    @property
    def default_targets(self) -> tuple[Target, ...]:
        """What is explained when the request does not say; nothing of an encoder, as it may not."""
        if "default_targets" in self.explain.model_fields_set:
            return self.explain.default_targets
        if self.task == "embedding":
            return ()
        event = self.outputs[0].event
        if event is not None:
            return (_latest(event),)
        if self.task == "reconstruction":
            return (EmbeddingTarget(kind="embedding", of="reconstruction_error"),)
        keys = [each.key for each in self.named if each.not_for_use is None]
        if self.task in KINDS[self.task]:  # one target of each class or value, by default
            return tuple(_TARGET.validate_python({"kind": self.task, "of": key}) for key in keys)
        return (ClassTarget(of=TOP1),) if self.exclusive and not self.decided else DEFAULT_TARGETS

    @property
    def target_kinds(self) -> tuple[str, ...]:
        """Kinds of target that can be asked for."""
        parts = {"view": bool(self.image.views), "instance": self.image.bag is not None}
        return (*KINDS[self.task], *(kind for kind, there in parts.items() if there))

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


def _latest(event: EventSpec) -> TimeToEventTarget:
    """Return the target of the event by the latest time that may be asked for, or of the risk."""
    if event.horizons:
        return TimeToEventTarget(kind="time_to_event", horizon=event.usable[-1])
    return TimeToEventTarget(kind="time_to_event", of="risk")
