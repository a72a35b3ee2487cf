"""What is asked for: a study, a model, targets, methods, artifacts."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints, field_validator

from service.domain.job import Priority
from service.domain.target import ABOVE_THRESHOLD, ClassTarget, Target
from service.domain.value import Name, Slug, Value

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
"""A caller's own mark; opaque to us, it must not identify a patient."""

DEFAULT_ARTIFACTS = ("dicom_sc", "json")


class MethodChoice(Value):
    """A method by name, with its parameters."""

    name: Name
    parameters: dict[Name, JsonValue] = Field(default_factory=dict, max_length=32)


class ExplanationRequest(Value):
    """One request: every target is explained by every method."""

    study: Slug = Field(description="Identifier that POST /v1/studies answered.")
    instance: Slug | None = Field(
        default=None,
        description="Which object of the study; needed only when several fit the model.",
    )
    model: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._@-]{0,127}$")] = Field(
        description="Model name, or name@version; without a version, the newest."
    )
    targets: tuple[Target, ...] = Field(
        default=(ClassTarget(of=ABOVE_THRESHOLD),), min_length=1, max_length=32
    )
    methods: tuple[MethodChoice, ...] = Field(min_length=1, max_length=16)
    artifacts: tuple[Name, ...] = Field(default=DEFAULT_ARTIFACTS, max_length=16)
    grid: Literal["native", "source"] = Field(
        default="native",
        description="Grid of array artifacts: where the method made the map, or the source image.",
    )
    checks: Literal["none", "standard"] = "standard"
    priority: Priority = Priority.NORMAL
    label: Label | None = None

    @field_validator("methods", mode="before")
    @classmethod
    def _names_alone(cls, value: object) -> object:
        """Accept a method's bare name for a method with default parameters."""
        if not isinstance(value, list | tuple):
            return value
        return [{"name": each} if isinstance(each, str) else each for each in value]

    @field_validator("targets", mode="before")
    @classmethod
    def _keys_alone(cls, value: object) -> object:
        """Accept a class key or index alone for a class target."""
        if not isinstance(value, list | tuple):
            return value
        return [{"of": each} if isinstance(each, str | int) else each for each in value]

    @field_validator("methods")
    @classmethod
    def _once_each(cls, value: tuple[MethodChoice, ...]) -> tuple[MethodChoice, ...]:
        """Refuse a method named twice: artifact names would collide."""
        names = [each.name for each in value]
        if len(set(names)) != len(names):
            raise ValueError("each method may be named once in a request")
        return value
