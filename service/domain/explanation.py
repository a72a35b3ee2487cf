"""A finished explanation: the document that lies beside its artifacts.

It is written by the worker as ``job.json`` under the result prefix and is the
lasting record of the job; the gateway reads it, and nothing else, to answer.
It holds all that is needed to compute the same again, and nothing that names a
patient.
"""

import json
from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

from service.domain.artifact import Artifact
from service.domain.boxes import Detection
from service.domain.canonical import digest_of
from service.domain.parity import ParityReport
from service.domain.precision import Precision
from service.domain.request import ExplanationRequest
from service.domain.resolved import ResolvedTarget
from service.domain.trust import Binding, TrustReport, source_digest
from service.domain.value import Name, Sha256, Value
from service.domain.variable import VariableFact, VariableShare
from service.domain.view import ViewFact, ViewShare
from service.domain.volume import Geometry, Orientation, Steps
from service.errors.base import Failure

DOCUMENT_SCHEMA = 1

ExecutedOn = Literal["original", "surrogate"]
"""Whether a map was computed on the model itself, or on a network that stands in for it."""


class Prediction(Value):
    """What the model said of one class or value on the image explained."""

    key: str
    label: str
    index: int
    logit: float
    """What the network put out; of a segmentation, the greatest of all pixels; of a detection,
    the log odds of its best proposal; of a survival model in discrete time, those of the event by
    the time."""

    probability: float | None
    threshold: float | None
    above_threshold: bool | None
    value: float | None = None
    """Of a regression, in its unit; of a survival model without times, the log hazard."""

    unit: str | None = None
    cells: int | None = None
    """Pixels of the model's input at which a segmentation sees the class."""

    share: float | None = None
    """The same as a share of all."""

    detections: tuple[Detection, ...] = ()
    """Boxes of the class that a detection finds, the best first."""


class RemoteModel(Value):
    """What a server says of the model that it runs; nothing here can prove it."""

    endpoint: Name
    """The server's name in the administrator's list."""

    server: str
    """Name and version of the server's software, as it reports them."""

    model: str
    model_version: str | None
    """As the server's answers report it; `None` if they do not."""

    platform: str

    @property
    def words(self) -> str:
        """What can be said in place of a digest of weights."""
        version = self.model_version or "of unknown version"
        return f"weights not known; model {self.model} {version} of server {self.endpoint}"


class ModelRef(Value):
    """The model that was explained: to the byte, but for one that runs elsewhere."""

    name: str
    version: str
    title: str
    package: str
    """SHA-256 of the package."""

    weights: Sha256 | None
    """SHA-256 of the weights that ran; `None` of a model that runs elsewhere."""

    runtime: str
    remote: RemoteModel | None = None
    """What its server reported, of a model that runs elsewhere."""

    @property
    def weights_in_words(self) -> str:
        """Which weights ran, as far as that is known."""
        return self.remote.words if self.remote else f"weights sha256={self.weights}"


class LeftOut(Value):
    """An image of the study that was not explained, and why."""

    instance: str
    reasons: tuple[Name, ...]
    """Rules of the model that it breaks, by the manifest's names; ``not_chosen`` if none."""


class VolumeFacts(Value):
    """A series as one volume, without anything that names a patient or an object."""

    geometry: Geometry
    slices: int
    plane: Orientation
    spacing: tuple[float, float, float]
    """From slice to slice along the normal, between rows, between columns, in mm."""

    steps: Steps
    tilt: float
    """Angle between the way from slice to slice and the normal, in degrees."""

    affine: tuple[tuple[float, ...], ...]
    """Voxel ``(slice, row, column, 1)`` to patient coordinates (LPS, mm), homogeneous."""


class Subject(Value):
    """The image that was explained, without anything that names a patient."""

    study: str
    instance: str
    """Of a volume, the first of its objects as they were sent; of several views, the first."""

    series: str | None = None
    """Of a volume."""

    volume: VolumeFacts | None = None
    left_out: tuple[LeftOut, ...] = ()
    """The study's other images."""

    rows: int
    columns: int
    modality: str
    photometric_interpretation: str
    variables: tuple[VariableFact, ...] = ()
    """What the model was given beside the image."""

    views: tuple[ViewFact, ...] = ()
    """Of several images that the model saw at once, views or a bag; `rows` and `columns` above
    are the first's."""


class InstanceRef(Value):
    """A DICOM object that went in, to the byte, without an identifier of its own."""

    id: str
    sha256: Sha256
    sop_class_uid: str


class Provenance(Value):
    """What ran on what: with the request, all that is needed to compute the same again."""

    package: Sha256
    weights: Sha256 | None
    """`None` of a model that runs elsewhere: `remote` tells what its server reported."""

    remote: RemoteModel | None = None
    request: Sha256
    """Of the request as it was queued, in canonical JSON."""

    instances: tuple[InstanceRef, ...]
    device: str
    """Kind of device, such as ``cpu`` or ``cuda``."""

    hardware: str
    """The device's name; of a CPU, its instruction set."""

    precision: Precision
    """What the maps' passes were multiplied in; scores and checks are always float32."""

    tf32: bool
    """Whether the device may multiply float32 numbers by their first 10 bits."""

    threads: int
    """Threads of one operation on a CPU."""

    fixed_rows: int | None = None
    """Rows that every batch was padded to, the deterministic mode; `None` outside of it."""


class Check(Value):
    """One measure's outcome on one map."""

    name: Name
    version: int
    """Of the measure: numbers of different versions are not comparable."""

    outcome: Literal["pass", "weak", "fail", "not_applicable"]
    flags: tuple[Name, ...] = ()
    values: dict[str, JsonValue] = {}
    passes: int = 0
    """Rows that the model was asked for, for all maps of the image or method together."""

    meaning: str
    """One sentence to a reader, from a fixed table."""

    limits: str = ""
    """What the measure cannot see, in one sentence."""


class Restriction(Value):
    """That a map was kept to the parts of its image that hold image data, by its own account."""

    to: Literal["ultrasound_regions"]
    regions: tuple[tuple[int, int, int, int], ...]
    """Top, left, bottom and right in source pixels, the last two past the end."""

    outside_share: float
    """Share of the map's magnitude that lay in cells wholly outside, which are 0 now; [0, 1]."""

    outside_sum: float
    """Sum of their values."""


class MapFacts(Value):
    """What there is to know of a map without its values."""

    shape: tuple[int, ...]
    """``(C, *grid)``, with one channel for maps that have none."""

    signed: bool
    affine: tuple[tuple[float, ...], ...]
    """Cell indices (row, column), of a volume (slice, row, column), to source indices,
    homogeneous."""

    cell: tuple[float, ...]
    """Edge lengths of one native cell, in source pixels."""

    minimum: float
    maximum: float
    sum: float
    positive_fraction: float
    peak: tuple[float, ...] | None
    """Source indices of the center of the most relevant of the cells that reach into the image,
    likewise; where that lies beside the image, or the regions to which the map was kept, the
    nearest place in them. Of several that are alike, the middle one; `None` where all are."""

    padding_share: float = 0.0
    """Share of the map's magnitude that lies beside the image, in what the model's steps put
    around it, in [0, 1]."""

    seen_share: float = 1.0
    """Share of the image that the map covers, in (0, 1]: below 1 where the model's steps crop."""

    restriction: Restriction | None = None
    """`None` where the whole map stands; else all figures are of what was kept."""


class TargetLayer(Value):
    """The layer whose output a map was made of, and why it was this one."""

    name: str
    reason: str
    """That the request or the package named it, or how it was chosen where none did."""


class Omission(Value):
    """An artifact that was asked for and cannot be made of this map."""

    name: str
    """As `Artifact.name` would be."""

    format: str
    reason: Failure


class BagInstance(Value):
    """What one instance of a bag is called."""

    slice: int | None = None
    """Of the series in its order in the patient, counted from 1; `None` of a single image."""

    instance: str
    """The object, by our identifier."""

    frame: int | None = None
    """Of an object with several, counted from 1."""


class InstanceShare(BagInstance):
    """What one instance of a bag adds to the explained score."""

    relevance: float
    """How far the score falls when the instance is left out of the bag."""

    attention: float | None = None
    """The weight that the network gives it, as it says; no attribution."""


class Result(Value):
    """One method on one target."""

    method: Name
    version: int | None
    """Of the method: maps of different versions may differ; `None` of one that could not start."""

    parameters: dict[str, JsonValue]
    layer: TargetLayer | None = None
    """`None` of methods that look at no layer."""

    target: ResolvedTarget | None
    status: Literal["succeeded", "failed", "skipped"]
    reason: Failure | None = None
    executed_on: ExecutedOn = "original"
    degenerate: bool = False
    """Whether the map says nothing (constant, all zero): never drawn in color."""

    partial: bool = False
    map: MapFacts | None = None
    variables: tuple[VariableShare, ...] = ()
    """What the values beside the image add; empty of a method that shares out the image alone."""

    instances: tuple[InstanceShare, ...] = ()
    """Of a bag: what each instance adds to the score, the most first, whatever the method."""

    view: ViewShare | None = None
    """Of one of several views: its share among them, and what they have in common."""

    extras: dict[str, JsonValue] = {}
    """The method's own figures, such as a completeness residual."""

    checks: tuple[Check, ...] = ()
    trust: TrustReport | None = None
    artifacts: tuple[Artifact, ...] = ()
    omitted: tuple[Omission, ...] = ()
    """Artifacts that do not suit this map; the others were made."""


class Explanation(Value):
    """The whole document."""

    schema_number: int = DOCUMENT_SCHEMA
    id: str
    state: Literal["succeeded", "failed", "cancelled"]
    request: ExplanationRequest
    model: ModelRef | None = None
    subject: Subject | None = None
    predictions: tuple[Prediction, ...] = ()
    parity: ParityReport | None = None
    """`None` when the job ended before the model had answered."""

    results: tuple[Result, ...] = ()
    partial: bool = False
    failure: Failure | None = None
    attempt: int
    created: int
    started: int | None = None
    ended: int
    timings: dict[str, float] = {}
    """Seconds by stage."""

    versions: dict[str, str] = {}
    """Versions of the software that computed it."""

    provenance: Provenance | None = None
    """`None` when the job ended before it had results."""

    warnings: tuple[str, ...] = ()
    seal: Sha256 | None = None
    """SHA-256 of the canonical JSON of all else; `None` until it is written."""

    @property
    def coherent(self) -> bool:
        """Whether every map that is bound is bound to this document."""
        return all(
            self._binds(each.trust.binding, each.target)
            for each in self.results
            if each.trust is not None and each.trust.binding
        )

    def _binds(self, binding: Binding, target: ResolvedTarget | None) -> bool:
        """Tell whether a map was made in this job, of its image, by its model."""
        ran = self.provenance
        return (
            ran is not None
            and binding.holds
            and (binding.job, binding.attempt) == (self.id, self.attempt)
            and (binding.weights, binding.request) == (ran.weights, ran.request)
            and binding.precision == ran.precision
            and binding.source
            == source_digest(
                [each.sha256 for each in ran.instances], target.beside if target else None
            )
        )


def sealed(explanation: Explanation) -> Explanation:
    """Return the document with its seal, which is taken of it as it will be written."""
    document = json.loads(explanation.model_dump_json())
    return explanation.model_copy(update={"seal": _seal_of(document)})


def verify_seal(document: Mapping[str, JsonValue]) -> bool:
    """Tell whether a document, as it was read, is the one that was sealed.

    The seal is no signature: it finds damage and careless edits, not somebody
    who seals the edited document anew.
    """
    return document.get("seal") == _seal_of(document)


def _seal_of(document: Mapping[str, JsonValue]) -> str:
    """Return the digest of everything but the seal."""
    return digest_of({name: value for name, value in document.items() if name != "seal"})
