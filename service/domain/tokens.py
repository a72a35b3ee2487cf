"""Where a transformer's tokens lie in the image, as a package says."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, JsonValue, model_validator

from service.domain.inputs import KEEPING, Input, SlidingWindow
from service.domain.value import Value, Whole

Grid = Annotated[
    tuple[Annotated[Whole, Field(ge=1, le=4096)], ...], Field(min_length=2, max_length=3)
]
"""Cells along each spatial axis of the prepared image, in its order: rows, then columns."""

MOST_BEFORE: Final = 64
"""Tokens before those of the grid at most."""

SIZED: Final = frozenset({"resize", "crop"})
"""Steps that tell the size of what they leave."""


FORMS: Final[dict[str, JsonValue]] = {
    "oneOf": [
        {
            "required": ["grid"],
            "properties": {"grid": {"type": "array"}, "stages": {"maxItems": 0}},
            "if": {"properties": {"read": {"const": "class_token"}}, "required": ["read"]},
            "then": {"properties": {"prefix": {"minimum": 1}}, "required": ["prefix"]},
        },
        {
            "required": ["stages"],
            "properties": {
                "grid": {"type": "null"},
                "stages": {
                    "minItems": 1,
                    "anyOf": [{"items": {"maxItems": 2}}, {"items": {"minItems": 3}}],
                },
                "prefix": {"const": 0},
                "read": {"type": "null"},
            },
        },
    ]
}
"""What `Tokens._is_of_one_form` requires, as the published schema says it."""


class Tokens(Value):
    """How outputs of a transformer's layers, ``(N, tokens, width)``, are a grid over the image.

    It is tried, and refused where a change of the image does not move the tokens as it says.
    """

    model_config = ConfigDict(json_schema_extra=FORMS)

    prefix: Whole = Field(default=0, ge=0, le=MOST_BEFORE)
    """Tokens before those of the grid: a class token, registers."""

    grid: Grid | None = None
    """The patches; their tokens follow in row-major order. Without it the `stages` are given."""

    read: Literal["class_token", "mean"] | None = None
    """What the score is read from. If not given: the first token if there is a `prefix`, else the
    mean of the grid's."""

    stages: tuple[Grid, ...] = Field(default=(), max_length=8)
    """Of windowed tokens that are merged on the way, as of Swin: the grid of each stage, the finest
    first."""

    @model_validator(mode="after")
    def _is_of_one_form(self) -> "Tokens":
        """Require one grid, or those of stages, which have no other tokens."""
        if (self.grid is None) == (not self.stages):
            raise ValueError(
                "give 'grid', or of tokens that are merged on the way 'stages': one of both"
            )
        if self.stages and (self.prefix or self.read is not None):
            raise ValueError(
                "tokens of 'stages' have no 'prefix' and no 'read': the score is read off their"
                " mean"
            )
        if self.read == "class_token" and not self.prefix:
            raise ValueError(
                "without a 'prefix' there is no class token to be read: say how many tokens stand"
                " before the grid's, or leave 'read' out if there are none"
            )
        if len({len(each) for each in self.grids}) > 1:
            raise ValueError("every grid of 'stages' needs a number for each spatial axis")
        return self

    @property
    def grids(self) -> tuple[tuple[int, ...], ...]:
        """The grid, or those of all stages."""
        return self.stages if self.grid is None else (self.grid,)

    @property
    def reads_class(self) -> bool:
        """Whether the score is read off the first token."""
        return self.prefix > 0 if self.read is None else self.read == "class_token"

    def faults(self, image: Input, windows: SlidingWindow | None) -> Iterator[tuple[str, str]]:
        """Yield what does not go with the input, by JSON pointer within this section."""
        axes = len(image.layout) - 2
        if image.several or image.bag is not None:
            yield "", "'tokens' lie over one image or volume: leave it out of a bag, and of views"
        elif len(self.grids[0]) != axes:
            where = "/stages/0" if self.stages else "/grid"
            yield where, f"a grid of tokens needs one number for each of the input's {axes} axes"
        elif size := _size(image, windows):
            yield from self.misfits(size)

    def misfits(self, size: Sequence[int]) -> Iterator[tuple[str, str]]:
        """Yield the grids that do not cover a prepared image of some size, as `faults` does."""
        edges = " x ".join(map(str, size))
        for place, grid in enumerate(self.grids):
            if any(edge % cells for edge, cells in zip(size, grid, strict=True)):
                why = (
                    f"{' x '.join(map(str, grid))} cells do not divide the prepared image of"
                    f" {edges}: give the patches along each axis, rows first, and have 'steps'"
                    " prepare an image that they cover to its edge"
                )
                yield f"/stages/{place}" if self.stages else "/grid", why


def _size(image: Input, windows: SlidingWindow | None) -> Sequence[int] | None:
    """Return the size of what the network is given, where the manifest tells it."""
    if windows is not None:
        return windows.size
    shaping = [each for each in image.steps if each.name not in KEEPING or each.name == "resize"]
    if not shaping or shaping[-1].name not in SIZED:
        return None
    size = shaping[-1].parameters.get("size")
    listed = size if isinstance(size, list) else []
    known = [each for each in listed if isinstance(each, int)]
    return known if len(known) == len(listed) == len(image.layout) - 2 else None
