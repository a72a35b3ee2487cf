"""Views: several images of one study that a model takes at once.

Each is told by its header; the images of a bag, which are all alike to the model, by their
names in the study.
"""

from collections.abc import Sequence
from itertools import combinations

from pydantic import Field, model_validator

from service.domain.value import Name, Value

LEAST, MOST = 2, 8
"""Views that a model of several takes."""

MOST_IMAGES = 64
"""Single images that a bag may hold."""


class View(Value):
    """One of the images that a model takes at once; an empty list accepts any value."""

    key: Name
    label: str = Field(min_length=1, max_length=64)
    """What readers call it: ``left CC``."""

    view_positions: tuple[str, ...] = ()
    """Values of View Position, or what View Code Sequence says in its place: ``CC``."""

    lateralities: tuple[str, ...] = ()
    """Sides, of the image or of its series: ``L``, ``R`` or ``B``."""

    body_parts: tuple[str, ...] = ()
    mirrored: bool = False
    """Whether the network takes it turned left to right: many see all breasts face one way."""

    @property
    def rules(self) -> dict[str, tuple[str, ...]]:
        """What each attribute may hold, by the name of the rule."""
        return {
            "view_positions": self.view_positions,
            "lateralities": self.lateralities,
            "body_parts": self.body_parts,
        }


class ViewFact(Value):
    """Which image of a study was explained as a view."""

    key: Name
    label: str
    instance: str
    """The object, by our identifier."""

    rows: int
    columns: int


class ViewShare(Value):
    """What a map's own view is among all views of one target."""

    key: Name
    label: str
    share: float | None = Field(ge=0, le=1)
    """Of the magnitude of relevance in all views; `None` where no view has any."""

    together: bool
    """Whether the views were explained at once, so that their maps add up as one map's would;
    else each by itself, beside the others as they are."""

    full: float | None
    """Relevance that is drawn in full color, the same in all views; `None` without any."""


def demand_apart(views: Sequence[View]) -> None:
    """Require of several views that no image can be two of them.

    Raises
    ------
    ValueError
        There is one view alone, or too many; two have the same key, or rules that one
        image can hold to.
    """
    if not LEAST <= len(views) <= MOST:
        raise ValueError(f"'views' needs from {LEAST} to {MOST} views, or none")
    if len({each.key for each in views}) < len(views):
        raise ValueError("keys of 'views' must differ")
    for one, other in combinations(views, 2):
        if not _apart(one, other):
            raise ValueError(
                f"one image could be both '{one.key}' and '{other.key}': give them"
                " 'view_positions', 'lateralities' or 'body_parts' that have nothing in common"
            )


def _apart(one: View, other: View) -> bool:
    """Tell whether some attribute tells two views apart, whatever it holds."""
    pairs = zip(one.rules.values(), other.rules.values(), strict=True)
    return any(a and b and not set(a) & set(b) for a, b in pairs)


class OfViews(Value):
    """Some of a model's views: one by its key, or those of a side."""

    view: Name | None = Field(default=None, description="Key of the view.")
    laterality: str | None = Field(
        default=None, pattern="^[LR]$", description="In place of a key: all views of this side."
    )

    @model_validator(mode="after")
    def _says_which(self) -> "OfViews":
        """Require a key or a side, and not both."""
        if (self.view is None) == (self.laterality is None):
            raise ValueError("name a 'view' by its key, or give a 'laterality'")
        return self

    def among(self, views: Sequence[View]) -> tuple[View, ...]:
        """Return those that are meant; none where there are no such views."""
        if self.view is not None:
            return tuple(each for each in views if each.key == self.view)
        return tuple(each for each in views if each.lateralities == (self.laterality,))
