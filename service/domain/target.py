"""Which scalar is explained: as it is asked for, and as it was resolved."""

from typing import Annotated, Literal

from pydantic import Field

from service.domain.value import Slug, Value

TOP1 = "top1"
ABOVE_THRESHOLD = "above_threshold"


class ClassTarget(Value):
    """A class of a classifier.

    `of` is a class key of the manifest, a class index, ``top1`` (the class
    with the highest score) or ``above_threshold`` (every class above its
    threshold; none is a success without a map).
    """

    kind: Literal["class"] = "class"
    of: Annotated[int, Field(ge=0, le=100_000)] | Slug = Field(
        description="Class key, class index, 'top1' or 'above_threshold'."
    )
    score: Literal["logit"] = Field(
        default="logit",
        description="The scalar: the class's logit, before any activation.",
    )


Target = ClassTarget
"""Every kind of target; a union by `kind` once there are more."""

DEFAULT_TARGETS: tuple[Target, ...] = (ClassTarget(of=ABOVE_THRESHOLD),)
"""What is explained when neither request nor model says."""


class ResolvedTarget(Value):
    """A target as the model's answer on the image made it definite."""

    key: Slug
    """Class key: names the target in artifact names."""

    label: str
    index: int
    asked_as: str
    """What the request said: a key, an index, ``top1``, ``above_threshold``."""

    score: float
    """The explained scalar on the unchanged image (a logit)."""

    probability: float | None
    threshold: float | None
    above_threshold: bool | None
    """Whether the probability reaches the manifest's threshold."""
