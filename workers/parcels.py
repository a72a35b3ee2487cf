"""What each stage hands to the next: one frozen type at each boundary.

Large arrays travel between processes as ``.npy`` files in the job's scratch
folder, never through a pipe and never pickled; a parcel holds their paths.
Axes are in array order throughout: ``(C, rows, columns)`` of one image, ``(C,
slices, rows, columns)`` of a volume.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from service.domain.artifact import Artifact
from service.domain.explanation import (
    Check,
    ExecutedOn,
    InstanceShare,
    LeftOut,
    Omission,
    Prediction,
    Restriction,
    TargetLayer,
)
from service.domain.grid import Grid
from service.domain.manifest import Manifest
from service.domain.parity import ParityReport
from service.domain.request import ExplanationRequest
from service.domain.resolved import ResolvedTarget
from service.domain.study import Instance
from service.domain.target import Segment
from service.domain.trust import Binding, Probes, TrustReport
from service.domain.value import Sha256, Value
from service.domain.variable import VariableFact, VariableShare
from service.domain.view import View, ViewShare
from service.domain.volume import Volume
from service.errors.base import Failure
from service.queue.base import Lease
from workers.given import Given

if TYPE_CHECKING:  # a slot's process loads no tensor library
    from workers.targets.base import Chosen


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One object of a series, as it was sent."""

    instance: Instance
    file: Path


@dataclass(frozen=True, slots=True)
class Fetched:
    """The job with everything it needs at hand."""

    lease: Lease
    request: ExplanationRequest
    manifest: Manifest
    instance: Instance
    file: Path
    """The DICOM object, as it was sent."""

    scratch: Path
    """A folder of the job's own; removed when the job ends."""

    frame: int = 1
    """The object's frame that is explained, counted from 1."""

    series: tuple[SourceFile, ...] = ()
    """Of a volume all of its objects, `instance` and `file` the first of them; else empty."""

    left_out: tuple[LeftOut, ...] = ()
    """The study's other images."""

    unread: bool = False
    """Whether images came with the study that could not be read."""

    segmentations: Mapping[str, SourceFile] = field(default_factory=dict)
    """Those that regions are segments of, by name in the study."""

    view: View | None = None
    """Of one of several views, or of one image of a bag: which it is."""

    references: "tuple[Fetched, ...]" = ()
    """Images that it is held against, each by itself."""

    seen_with: tuple[Instance, ...] = ()
    """Of one of several views: all of them, in the model's order."""

    views: "tuple[Fetched, ...]" = ()
    """Each by itself, in the model's order, `instance` and `file` the first's; else empty."""

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All objects that are explained."""
        several = self.views or self.series
        return tuple(each.instance for each in several) or (self.instance,)

    @property
    def beside(self) -> tuple[Instance, ...]:
        """All objects that targets are made of beside those."""
        marks = (each.instance for each in self.segmentations.values())
        return (*marks, *(each.instance for each in self.references))


class ImageFacts(Value):
    """What the decoder learned, beside the pixels; safe inside the job only."""

    rows: int
    columns: int
    slices: int | None = None
    """Of a volume; `None` of a single image."""

    channels: int
    """1 for gray, 3 for color."""

    frame: int | None = None
    """Which of several frames it is, counted from 1; `None` where there is but one."""

    modality: str
    photometric_interpretation: str
    bits_stored: int
    stored_minimum: int
    stored_maximum: int
    """Range that the stored values may take, by BitsStored and sign."""

    value_minimum: float
    value_maximum: float
    """The same range after the modality transform: where inversion mirrors."""

    lossy: bool
    window: tuple[float, float] | None
    """Center and width used for display, if a linear window was used."""

    uptake_scale: float | None = None
    """From modality values to SUV by body weight, g/mL; `None` where it is not known."""

    regions: tuple[tuple[int, int, int, int], ...] = ()
    """Ultrasound regions: top, left, bottom, right, the last two past the end."""

    warnings: tuple[str, ...] = ()
    """Repairs and doubts, as codes from a fixed table."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns; of a volume, slices, rows and columns."""
        plane = (self.rows, self.columns)
        return plane if self.slices is None else (self.slices, *plane)


@dataclass(frozen=True, slots=True)
class Decoded:
    """The image in modality units, and as a viewer would show it.

    `shape` below is ``(rows, columns)`` of one image, and ``(slices, rows,
    columns)`` of a volume, whose slices are in the order of `volume.slices`.
    """

    fetched: Fetched
    facts: ImageFacts
    pixels: Path
    """Modality values (HU, ...), shape ``(C, *shape)``: float32, or integers as they were
    stored where those mean the same."""

    display: Path
    """Uint8 as displayed, VOI and MONOCHROME1 applied: ``(*shape[, 3])``; of a volume all
    slices through one window."""

    padding: Path | None
    """Boolean mask of pixel padding, shape ``shape``, if there is any."""

    header: Path
    """The DICOM data set without its pixel data, for derived objects; of a volume, that of
    its first slice."""

    volume: Volume | None = None
    """Where the slices lie in the patient; `None` of a single image."""

    views: "tuple[Decoded, ...]" = ()
    """Each by itself, the fields above the first's; empty of one image or volume."""

    references: "tuple[Decoded, ...]" = ()
    """Images that it is held against."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """An image that the one explained is held against."""

    tensor: NDArray[np.float32]
    """As the model takes it, shape ``(C, *spatial)``."""

    sha256: Sha256
    """Of the object as it was sent."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The model's input and the way back to the source image."""

    decoded: Decoded
    tensor: NDArray[np.float32]
    """Model input without the batch axis, shape ``(C, *spatial)``; of several views, ``(C,
    views, rows, columns)``."""

    grid: Grid
    """The model input's pixels in the source image, or its voxels in the source volume; of
    several views its own, because each lies in an image of its own."""

    variables: tuple[VariableFact, ...] = ()
    """What stands beside it, in the order of the manifest."""

    given: Mapping[Segment, Given] = field(default_factory=dict)
    """Regions that the request gives as segments."""

    views: "tuple[Prepared, ...]" = ()
    """Each by itself, in the model's order; empty of one image or volume."""

    references: Mapping[str, Reference] = field(default_factory=dict)
    """Images that it is held against, by name in the study."""

    @property
    def seen(self) -> tuple[View, ...]:
        """Which view each is; empty of one image or volume."""
        found = (each.decoded.fetched.view for each in self.views)
        return tuple(each for each in found if each is not None)

    def place(self, part: str | int | None) -> int | None:
        """Return where a view lies, by its key, or a slice, by its number from 1; else `None`."""
        if isinstance(part, int):
            first, step = self.grid.affine[0, -1], self.grid.affine[0, 0]
            return round(float((part - 1 - first) / step))
        return next((k for k, each in enumerate(self.seen) if each.key == part), None)

    def of(self, part: str | int | None) -> "Prepared":
        """Return a view or a slice by itself; of one image or volume, all there is."""
        place = self.place(part)
        if place is None:
            return self
        return self.views[place] if self.views else self._slice(place)

    def _slice(self, place: int) -> "Prepared":
        """Return a volume's slice as an image; its files stay those of the volume."""
        plane = Grid(self.grid.shape[1:], self.grid.affine[1:, 1:])
        facts = self.decoded.facts.model_copy(update={"slices": None})
        decoded = replace(self.decoded, facts=facts, volume=None)
        return replace(self, decoded=decoded, tensor=self.tensor[:, place], grid=plane)


@dataclass(frozen=True, slots=True)
class Attribution:
    """One method on one target: the raw signed map on its own grid."""

    method: str
    version: int | None
    """Of the method; `None` when it could not start."""

    parameters: dict[str, Any]
    signed: bool
    target: ResolvedTarget | None
    """`None` when the method failed before any target was resolved."""

    values: NDArray[np.float32] | None
    """Shape ``(C, *grid.shape)``; `None` when the method failed."""

    grid: Grid | None
    """Cells of the map in the source image."""

    layer: TargetLayer | None = None
    instances: tuple[InstanceShare, ...] = ()
    """Of a bag: what each instance adds to the score, the most first."""

    variables: tuple[VariableShare, ...] = ()
    """What the values beside the image add; empty if the method shares out the image alone."""

    extras: dict[str, float] = field(default_factory=dict)
    executed_on: ExecutedOn = "original"
    partial: bool = False
    failure: Failure | None = None
    binding: Binding | None = None
    """What the map was made of; `None` when there is no map."""

    padding_share: float = 0.0
    """Share of their magnitude that lies beside the image, in what steps put around it."""

    restriction: Restriction | None = None
    """What `values` were kept to; `None` where they are all that the method made."""

    view: ViewShare | None = None
    """Of one of several views: its share among them."""

    elsewhere: float = 0.0
    """Sum of the map in the other views, where all were made together."""


@dataclass(frozen=True, slots=True)
class Attributed:
    """All maps of the job, with what the model said."""

    prepared: Prepared
    predictions: tuple[Prediction, ...]
    attributions: tuple[Attribution, ...]
    parity: ParityReport
    """How the predictions compare with what the issuing AI was observed to say."""

    chosen: "tuple[Chosen, ...]" = ()
    """What was explained, each with its scalar."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the measures say of one map."""

    checks: tuple[Check, ...]
    degenerate: bool
    blank: bool = False
    """Whether it is zero because all evidence lies in other images."""

    trust: TrustReport | None = None
    """`None` where there is no map."""

    probes: Probes | None = None
    """The probe bank as this map was held against it."""

    reference: float | None = None
    """Relevance that pictures draw in full color; without it a map is scaled to itself."""


@dataclass(frozen=True, slots=True)
class Judged:
    """All maps with their checks, in the order of the attributions."""

    attributed: Attributed
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class RenderedFile:
    """An artifact that still lies in the scratch folder."""

    artifact: Artifact
    path: Path


@dataclass(frozen=True, slots=True)
class Rendered:
    """All artifacts, each tuple in the order of the attributions."""

    judged: Judged
    files: tuple[tuple[RenderedFile, ...], ...]
    omitted: tuple[tuple[Omission, ...], ...]
    """Artifacts that do not suit their map, likewise."""
