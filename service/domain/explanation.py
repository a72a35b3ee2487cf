"""A finished explanation: the document that lies beside its artifacts.

It is written by the worker as ``job.json`` under the result prefix and is the
lasting record of the job; the gateway reads it, and nothing else, to answer.
"""

from typing import Literal

from pydantic import JsonValue

from service.domain.artifact import Artifact
from service.domain.parity import ParityReport
from service.domain.request import ExplanationRequest
from service.domain.target import ResolvedTarget
from service.domain.trust import TrustReport
from service.domain.value import Name, Value
from service.errors import Failure

DOCUMENT_SCHEMA = 1


class Prediction(Value):
    """What the model said of one class on the image explained."""

    key: str
    label: str
    index: int
    logit: float
    probability: float | None
    threshold: float | None
    above_threshold: bool | None


class ModelRef(Value):
    """The model that was explained, to the byte."""

    name: str
    version: str
    title: str
    package: str
    """SHA-256 of the package."""

    weights: str
    """SHA-256 of the weights file that ran."""

    runtime: str
    executed_on: Literal["original", "surrogate"] = "original"


class Subject(Value):
    """The image that was explained, without anything that names a patient."""

    study: str
    instance: str
    rows: int
    columns: int
    modality: str
    photometric_interpretation: str


class Check(Value):
    """One measure's outcome on one map."""

    name: Name
    outcome: Literal["pass", "fail", "not_applicable"]
    flags: tuple[Name, ...] = ()
    values: dict[str, JsonValue] = {}
    meaning: str
    """One sentence to a reader, from a fixed table."""


class MapFacts(Value):
    """What there is to know of a map without its values."""

    shape: tuple[int, ...]
    """``(C, *grid)``, with one channel for maps that have none."""

    signed: bool
    affine: tuple[tuple[float, ...], ...]
    """Cell indices (row, column) to source pixel indices, homogeneous."""

    cell: tuple[float, ...]
    """Edge lengths of one native cell, in source pixels."""

    minimum: float
    maximum: float
    sum: float
    positive_fraction: float
    peak: tuple[float, ...] | None
    """Source pixel indices (row, column) of the most relevant cell's center."""


class Result(Value):
    """One method on one target."""

    method: Name
    parameters: dict[str, JsonValue]
    target: ResolvedTarget | None
    status: Literal["succeeded", "failed", "skipped"]
    reason: Failure | None = None
    degenerate: bool = False
    """Whether the map says nothing (constant, all zero): never drawn in color."""

    partial: bool = False
    map: MapFacts | None = None
    extras: dict[str, JsonValue] = {}
    """The method's own figures, such as a completeness residual."""

    checks: tuple[Check, ...] = ()
    trust: TrustReport | None = None
    artifacts: tuple[Artifact, ...] = ()


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

    warnings: tuple[str, ...] = ()
