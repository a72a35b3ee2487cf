"""A loaded model: what the shelf holds and the attribute stage works with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.domain.catalog import ModelEntry
from service.domain.explanation import ModelRef
from service.domain.manifest import Manifest
from workers.methods.base import ModelFacts
from workers.records import Records
from workers.regions import Mask
from workers.runtimes.base import Runtime


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is ready to be explained."""

    manifest: Manifest
    ref: ModelRef
    facts: ModelFacts
    runtime: Runtime
    entry: ModelEntry
    records: Records
    """What was measured of methods on this model."""

    region: Mask | None = None
    """The package's mask of where evidence may lie, if it has one."""

    gaps: Mapping[int, float] = field(default_factory=dict)
    """By class: how far its logit lies apart on validation cases with and without it."""
