"""What was measured of one method on one model, before any patient's image was explained."""

from typing import Literal

from pydantic import Field, JsonValue

from service.domain.value import Name, Sha256, Value

CERTIFICATE_SCHEMA = 1

Certified = Literal["passed", "weakly_specific", "failed", "not_certifiable"]
"""How a certificate ends."""

Plane = tuple[tuple[float, ...], ...]
"""A template's values over two axes; one of a volume has several."""

Compared = Literal["all_random", "head_random", "other_class", "other_patient"]
"""What maps are compared with: those of shuffled weights, of a shuffled head, of another
class of the same image, of another image with the same class."""


class Similarity(Value):
    """Mean Spearman correlation of pairs of maps, with its 95 % interval."""

    value: float
    low: float
    high: float
    pairs: int


class Certificate(Value):
    """Whether a method's maps follow the model's weights and its target."""

    outcome: Certified
    reason: Name | None = None
    """Code of why nothing could be certified."""

    similarities: dict[Compared, Similarity] = {}
    control: dict[Compared, Similarity] = {}
    """The same of an edge detector, which knows nothing of the model: it must fail."""

    cases: int
    seeds: int
    """Shuffles of the weights that each case met."""

    synthetic: bool
    """Whether the cases are drawn and not taken of persons."""

    surrogate: bool = False
    """Whether its maps are those of a network that stands in for the model, whose weights alone
    could be shuffled."""

    protocol: int
    """Version of how this was measured."""


class Quantiles(Value):
    """A distribution at 5, 25, 50, 75 and 95 %."""

    p05: float
    p25: float
    p50: float
    p75: float
    p95: float


class MethodCalibration(Value):
    """How the method's maps fare on the model's validation cases."""

    maps: int
    """Maps of findings that were present and reported."""

    supported: float = Field(ge=0, le=1)
    """Share of them whose places the probe bank supports."""

    r: Quantiles | None
    p: Quantiles | None
    reference: float | None
    """Magnitude of relevance that pictures draw in full color; `None` when all maps were blank."""

    templates: dict[str, Plane | tuple[Plane, ...]] = {}
    """Mean map of each class key, of unit length, on a coarse grid over the model's input."""

    @property
    def weak(self) -> bool:
        """Whether fewer than half of the maps were supported."""
        return self.supported < 0.5  # noqa: PLR2004 - the half of the sentence above


class MethodRecord(Value):
    """Certificate and calibration of one method, its parameters settled, on one model."""

    schema_number: int = CERTIFICATE_SCHEMA
    id: Sha256
    """Digest of all that this depends on: equal ids, equal numbers."""

    method: Name
    parameters: dict[str, JsonValue]
    weights: Sha256
    runtime: str
    certificate: Certificate
    calibration: MethodCalibration | None = None
