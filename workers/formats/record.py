"""What is said of one map: the record that formats write out."""

from typing import Final

from pydantic import ConfigDict, JsonValue

from service.domain.catalog import Sense
from service.domain.explanation import (
    Check,
    ExecutedOn,
    InstanceShare,
    ModelRef,
    Restriction,
    TargetLayer,
)
from service.domain.outputs import Code
from service.domain.parity import MapParity
from service.domain.precision import Precision
from service.domain.request import ObjectChoice, SliceChoice, Style, TransferSyntax
from service.domain.resolved import ResolvedTarget
from service.domain.trust import Probes, TrustReport
from service.domain.value import Value
from service.domain.variable import VariableFact, VariableShare
from service.domain.view import ViewShare
from service.domain.volume import Volume
from workers.parcels import ImageFacts
from workers.regions import Box

EARLY: Final = "Partial map: stopped early"
"""What every object says of a map of a part of its method's work."""

EFFORT: Final = ("samples", "orders", "steps", "points", "tried", "channels", "gradient_rows")
"""Figures of a method that tell how much of its work was done."""


class MapRecord(Value):
    """One map and all that is said of it, in words and numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    number: int
    """Its place in the job, counted from 1."""

    method: str
    method_version: int
    method_title: str
    parameters: dict[str, JsonValue]
    layer: TargetLayer | None = None
    target: ResolvedTarget
    finding: Code | None
    """The target's concept, where the model's manifest names one."""

    signed: bool
    sense: Sense = "evidence"
    executed_on: ExecutedOn = "original"
    degenerate: bool
    blank: bool = False
    """Whether the map is zero because all evidence lies in other images seen with this one."""

    partial: bool
    instances: tuple[InstanceShare, ...] = ()
    """Of a bag: what each instance adds to the score, the most first."""

    instances_shown: int = 0
    """How many of them pictures show; of single images, how many are key images."""

    view: ViewShare | None = None
    """Of one of several views: its share among them, and what they have in common."""

    given: tuple[VariableFact, ...] = ()
    """What the model was given beside the image."""

    variables: tuple[VariableShare, ...] = ()
    """What that adds to the score; empty of a method that explains the image alone."""

    extras: dict[str, float]
    checks: tuple[Check, ...]
    trust: TrustReport
    parity: MapParity

    probes: Probes | None
    """The probe bank as this map was held against it."""

    reference: float | None
    """Relevance that is drawn in full color; without it the map is scaled to itself."""

    model: ModelRef
    precision: Precision
    """What the map was computed in."""

    facts: ImageFacts
    affine: tuple[tuple[float, ...], ...]
    """Cell indices to source pixel indices, homogeneous."""

    on_source_grid: bool
    """Whether array formats resample to the source image's pixels."""

    digest: str
    """SHA-256 of what was asked of which image; names the derived series."""

    created: int
    """When the job was made, in milliseconds since the epoch."""

    software: str
    """Our version."""

    style: Style
    """How pictures show the map."""

    transfer_syntax: TransferSyntax
    """How DICOM images of integer pixels are encoded."""

    slices: SliceChoice = "relevant"
    """Which slices of a volume pictures show."""

    objects: ObjectChoice = "multi_frame"
    """Whether a volume's pictures are frames of one DICOM object, or an object each."""

    volume: Volume | None = None
    """Where the source's slices lie in the patient; `None` of a single image."""

    padding_share: float = 0.0
    """Share of the map's magnitude that lies beside the image, in what steps put around it."""

    restriction: Restriction | None = None
    """What the map was kept to; `None` where it is all that the method made."""

    @property
    def mark(self) -> str:
        """What goes before the words for a map that was stopped early; else nothing."""
        return f"{EARLY}. " if self.partial else ""

    @property
    def tag(self) -> str:
        """The same in short, before a series' description and a segment's label."""
        return "PARTIAL: " if self.partial else ""

    @property
    def settings(self) -> tuple[str, ...]:
        """The parameters as text; of a partial map, what was done of what they ask for."""
        asked = tuple(f"{name}={value}" for name, value in sorted(self.parameters.items()))
        if not self.partial:
            return asked
        done = (
            f"{self.extras[each]:.0f} {each.replace('_', ' ')} done"
            for each in EFFORT
            if each in self.extras
        )
        return (EARLY, *done, *(f"{each} asked for" for each in asked))

    @property
    def helping(self) -> tuple[InstanceShare, ...]:
        """Of a bag, the most relevant instances, without which the score falls."""
        best = self.instances[: self.instances_shown]
        return tuple(each for each in best if each.relevance > 0)

    @property
    def instance(self) -> InstanceShare | None:
        """Of a bag, what the map's own image or slice adds; `None` where it has none."""
        image, number = self.target.view, self.target.slice
        own = (
            each
            for each in self.instances
            if (each.slice == number if number is not None else each.instance == image)
        )
        return next(own, None)

    @property
    def regions(self) -> tuple[Box, ...]:
        """Where evidence is shown and counted; empty for everywhere."""
        return () if self.restriction is None else self.restriction.regions

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the source's axes, in array order."""
        return ("row", "column") if self.facts.slices is None else ("slice", "row", "column")
