"""What the fleet can do: methods, models, formats, measures."""

from collections.abc import Collection
from typing import Literal

from pydantic import JsonValue

from service.domain.certificate import Certified, Compared, Quantiles, Similarity
from service.domain.inputs import ImageCount
from service.domain.outputs import EventSpec
from service.domain.precision import PrecisionRecord
from service.domain.scores import ScoreEntry
from service.domain.target import DEFAULT_TARGETS, Target
from service.domain.value import Name, Sha256, Value
from service.domain.variable import Variable
from service.domain.view import View
from service.errors.base import Failure

Sense = Literal["evidence", "sensitivity", "guided"]
"""What values of a map mean: shares of the score, above zero for the target and below against it;
which way the score moves where a pixel's value rises; or that with altered derivatives, where the
sign says neither."""


class MethodEntry(Value):
    """A method as workers know it."""

    name: str
    version: int
    """Raised when equal parameters give other maps than before."""

    title: str
    parameters: dict[str, JsonValue]
    """JSON schema of its parameters.

    Two keywords are our own: ``x-at-most`` names the parameter of which a number may not exceed
    any value, ``x-under-image`` says that it must be under the longest edge of the model's input.
    """

    needs: tuple[str, ...]
    """Abilities of a runtime that its passes call for."""

    signed: bool
    """Whether values below zero mean something."""

    sense: Sense = "evidence"
    paper: str
    cost: str
    """Cost in rows, in words and symbols, such as ``steps gradient rows``."""

    weaknesses: str
    weak: bool = False
    """Whether it is weak evidence on any model: its maps are graded ``weak`` at best."""

    differentiates: bool = False
    """Whether it takes derivatives, and so needs a score that has them (`smooth`)."""

    linear: bool = False
    """Whether it is right of scores alone that are weighted sums of outputs (`linear`)."""

    partial_map: bool = False
    """Whether it gives a partial map, if enough was done, when time is up before its end."""


class LayerEntry(Value):
    """A layer that can be a method's target layer, as probed."""

    name: str
    shape: tuple[int, ...]
    """Shape of its output for one row."""

    reason: str = ""
    """Why it was chosen, where the package names no layer."""


class ClassEntry(Value):
    """One class of a model's output."""

    key: str
    label: str
    index: int
    threshold: float | None
    not_for_use: str | None = None
    """Why nobody may ask for it, if so."""

    code: dict[str, str] | None = None


class ValueEntry(Value):
    """One number that a regression gives."""

    key: str
    label: str
    index: int
    unit: str
    reference: float | None = None
    """What it is counted from where a request does not say."""

    not_for_use: str | None = None
    code: dict[str, str] | None = None


class CalibrationEntry(Value):
    """How a method's maps fare on a model's validation cases."""

    maps: int
    """Maps of findings that were present and reported."""

    supported: float
    """Share of them whose places the probe bank supports."""

    weak: bool
    """Whether fewer than half were."""

    r: Quantiles | None
    p: Quantiles | None
    reference: float | None
    """Magnitude of relevance that pictures draw in full color."""


class CertificateEntry(Value):
    """What was measured of a method, with these parameters, on a model."""

    method: Name
    parameters: dict[str, JsonValue]
    """Every parameter, the model's own defaults filled in."""

    default: bool
    """Whether a request that gives no parameter gets these."""

    id: Sha256
    outcome: Certified | Literal["pending"]
    """``pending`` while it waits to be measured, or is."""

    reason: Name | None = None
    """Code of why nothing could be certified."""

    similarities: dict[Compared, Similarity] = {}
    control: dict[Compared, Similarity] = {}
    """The same of an edge detector, which must fail."""

    cases: int = 0
    seeds: int = 0
    synthetic: bool = False
    surrogate: bool = False
    """Whether its maps are those of the network that stands in for the model."""

    protocol: int
    calibration: CalibrationEntry | None = None


class SurrogateEntry(Value):
    """The network that stands in for a model where that cannot serve a method itself."""

    methods: tuple[str, ...]
    """Methods whose maps are computed on it."""

    difference: float
    """Largest difference of a logit from the model's on noise, as the tolerance counts it."""

    tolerance: float
    """Of the manifest, for noise and for every image that is explained."""


class MemoryEntry(Value):
    """What a model takes of a device's memory, by trial runs of two batches.

    Of an ONNX file ``forward`` is by how much the process grows in a run of onnxruntime, and
    ``gradient`` is of its graph as it is interpreted.
    """

    fixed_bytes: int
    """Whatever the number of rows: its weights, for the most part."""

    row_bytes: dict[str, int]
    """For each row of a batch, by kind of pass: ``forward``, ``gradient``."""


class ModelEntry(Value):
    """A model package and what a worker found when it probed it."""

    name: str
    version: str
    package: str
    tenants: tuple[str, ...] = ()
    """To whom it is given; to all if empty. Administrators alone are told."""

    title: str
    task: str
    intended_use: str
    not_for: str
    license: str
    runtime: str
    state: Literal["ready", "unavailable"]
    failure: Failure | None = None
    shape: tuple[int, ...] = ()
    """Of its input as prepared, ``(C, *spatial)``."""

    abilities: tuple[str, ...] = ()
    layers: tuple[LayerEntry, ...] = ()
    refused_layers: dict[str, str] = {}
    """Layers that the package names and that cannot be used, each with the reason."""

    unnoticed: dict[str, str] = {}
    """What could be wrong in it and pass every self-test, by field of its manifest."""

    classes: tuple[ClassEntry, ...] = ()
    values: tuple[ValueEntry, ...] = ()
    """Of a regression, in place of classes; of a survival model that gives one risk, this."""

    event: EventSpec | None = None
    """Of a survival model; `classes` are the event by each of its times."""

    inputs: tuple[str, ...] = ()
    """Names of what it takes, the image or volume first."""

    variables: tuple[Variable, ...] = ()
    """What it takes beside the image; a request gives them as `values`."""

    views: tuple[View, ...] = ()
    """The images that it takes at once; empty of a model of one image or volume."""

    images: ImageCount | None = None
    """Of a model that takes single images of a study in any number, as a bag: how many."""

    target_kinds: tuple[str, ...] = ("class",)
    """Kinds of target that can be asked for."""

    scores: tuple[ScoreEntry, ...] = ()
    """What a target may say in `score`, of kinds that leave a choice."""

    default_targets: tuple[Target, ...] = DEFAULT_TARGETS
    """What is explained when a request does not say."""

    accept: dict[str, JsonValue] = {}
    methods: tuple[str, ...] = ()
    """Methods that this model can serve: needs within abilities."""

    refused: dict[str, str] = {}
    """Methods that it cannot serve, each with the reason."""

    surrogate: SurrogateEntry | None = None
    """`None` where the model serves every method itself."""

    row_seconds: dict[str, float] = {}
    """Measured seconds a row, by kind of pass: ``forward``, ``gradient``."""

    memory: MemoryEntry | None = None
    load_seconds: float | None = None
    """How long its worker took to read, test and probe it."""

    method_rows: dict[str, dict[str, int]] = {}
    """Rows that each method takes with its default parameters on one target."""

    certificates: tuple[CertificateEntry, ...] = ()
    """What was measured of methods on this model; those with default parameters first."""

    precisions: tuple[PrecisionRecord, ...] = ()
    """What was measured, of methods that somebody asked for in a lower precision."""

    refused_precisions: dict[str, str] = {}
    """Precisions that no method can have on this model, each with the reason's code."""


class FormatEntry(Value):
    """An artifact format."""

    name: str
    title: str
    media_type: str
    extension: str


class MeasureEntry(Value):
    """A check that is made of each map."""

    name: str
    version: int
    title: str
    parameters: dict[str, JsonValue]
    """JSON schema of its parameters."""

    passes: str
    """Cost in rows, in words."""

    when: Literal["standard", "full"]
    """From which level of checks on it is made."""

    meaning: str
    limits: str


class Catalog(Value):
    """Everything one worker can do; the fleet's catalog is their union."""

    methods: tuple[MethodEntry, ...] = ()
    models: tuple[ModelEntry, ...] = ()
    formats: tuple[FormatEntry, ...] = ()
    measures: tuple[MeasureEntry, ...] = ()
    unavailable: dict[str, str] = {}
    """Parts that could not be imported, with the reason."""

    def without(self, packages: Collection[str]) -> "Catalog":
        """Return the catalog without the models of some packages."""
        models = tuple(each for each in self.models if each.package not in packages)
        return self.model_copy(update={"models": models})

    def seen_by(self, tenant: str) -> "Catalog":
        """Return the catalog without the models that are not given to a tenant."""
        models = tuple(each for each in self.models if not each.tenants or tenant in each.tenants)
        return self.model_copy(update={"models": models})
