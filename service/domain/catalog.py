"""What the fleet can do: methods, models, formats, measures."""

from typing import Literal

from pydantic import JsonValue

from service.domain.value import Value
from service.errors import Failure


class MethodEntry(Value):
    """A method as workers know it."""

    name: str
    title: str
    parameters: dict[str, JsonValue]
    """JSON schema of its parameters."""

    needs: tuple[str, ...]
    """Abilities of a runtime that its passes call for."""

    signed: bool
    paper: str
    cost: str
    """Cost in rows, in words and symbols, such as ``steps gradient rows``."""

    weaknesses: str


class LayerEntry(Value):
    """A layer that can be a method's target layer, as probed."""

    name: str
    shape: tuple[int, ...]
    """Shape of its output for one row."""


class ClassEntry(Value):
    """One class of a model's output."""

    key: str
    label: str
    index: int
    threshold: float | None
    code: dict[str, str] | None = None


class ModelEntry(Value):
    """A model package and what a worker found when it probed it."""

    name: str
    version: str
    package: str
    title: str
    task: str
    intended_use: str
    not_for: str
    license: str
    runtime: str
    state: Literal["ready", "unavailable"]
    failure: Failure | None = None
    abilities: tuple[str, ...] = ()
    layers: tuple[LayerEntry, ...] = ()
    classes: tuple[ClassEntry, ...] = ()
    accept: dict[str, JsonValue] = {}
    methods: tuple[str, ...] = ()
    """Methods that this model can serve: needs within abilities."""

    refused: dict[str, str] = {}
    """Methods that it cannot serve, each with the reason."""

    row_seconds: dict[str, float] = {}
    """Measured seconds a row, by kind of pass: ``forward``, ``gradient``."""

    method_rows: dict[str, dict[str, int]] = {}
    """Rows that each method takes with its default parameters on one target."""


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
