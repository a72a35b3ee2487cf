"""A loaded model: what the shelf holds and the attribute stage works with."""

from dataclasses import dataclass

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
