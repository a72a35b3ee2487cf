"""Precisions: what a job's passes may be multiplied in, and what was measured of it."""

from typing import Final, Literal

from pydantic import JsonValue

from service.domain.value import Name, Sha256, Value

Precision = Literal["float32", "bfloat16"]
"""What products are taken in; sums and all else are float32."""

PROTOCOL: Final = 1
"""Version of how a precision is measured: raised with any change of a number."""


class PrecisionRecord(Value):
    """How far a method's maps in bfloat16 are from those in float64, on one model.

    The worst map of all known cases decides, because a request is for one map:
    with `n` cases that all pass, at least ``0.05 ** (1 / n)`` of such maps do, at
    95 % confidence (88 % for 24 cases).
    """

    id: Sha256
    """Digest of all that this depends on: equal ids, equal numbers."""

    method: Name
    parameters: dict[str, JsonValue]
    """Every parameter, the model's own defaults filled in."""

    precision: Precision = "bfloat16"
    device: str
    """Kind of device, such as ``cpu`` or ``cuda``."""

    outcome: Literal["offered", "not_offered", "pending"]
    """``pending`` while it waits to be measured, or is; never in the store."""

    reason: Name | None = None
    """Code of why it is not offered."""

    gate: float
    """Pearson's correlation that every map must reach."""

    worst: float | None = None
    """Lowest correlation of a map with the one in float64, rounded down."""

    median: float | None = None
    maps: int = 0
    """Maps compared: of every class that a case shows, and of one that it does not."""

    cases: int = 0
    synthetic: bool = False
    """Whether the cases are drawn and not taken of persons."""

    protocol: int = PROTOCOL
