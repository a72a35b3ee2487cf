"""The fields of ``model.yaml``, each valid by itself, and what follows from them.

An unknown key is refused, so that a misspelt one is never silently ignored.
No code of a package is ever run: a manifest holds names out of closed lists.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, TypeAdapter

from service.domain.canonical import digest_of
from service.domain.files import Calibration, File, SelfTest
from service.domain.inputs import AnyInput, Input, SlidingWindow, TabularInput
from service.domain.network import Architecture, Head, KeyMap, Layer, Members, Remote, Surrogate
from service.domain.outputs import ClassSpec, EventSpec, Output, ValueSpec
from service.domain.regions import Region
from service.domain.target import (
    DEFAULT_TARGETS,
    KINDS,
    TOP1,
    ClassTarget,
    EmbeddingTarget,
    Target,
    TimeToEventTarget,
)
from service.domain.tokens import Tokens
from service.domain.value import Name, Slug, Value, Version
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

    methods: tuple[Name, ...] = ()
    """Methods by which the model may be explained; every one that it can serve if empty."""

    baseline: float = 0.0
    """Reference value of a pixel, in model-input units."""

    expected_region: Region | None = None
    """Where evidence may lie; that the score needs what is outside is reported."""


NAMED = {"regression": "values", "survival": "event", "reconstruction": "values"}
"""What the outputs of a task name; of the others it is `classes`, and of an encoder nothing."""

LOADED = {"torch": ("weights", "safetensors"), "onnx": ("forward", "onnx")}
"""Role and format of the file that each runtime loads; one that loads none is not here."""


class Fields(Value):
    """What stands in a model package's ``model.yaml``."""

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

    tokens: Tokens | None = None
    """Where a transformer's tokens lie, of a network that does not bring that with it."""

    explain: Explain = Explain()
    surrogate: Surrogate = Surrogate()
    calibration: Calibration | None = None
    """Without it no method can be certified for this model."""

    selftests: tuple[SelfTest, ...] = Field(min_length=1)

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
