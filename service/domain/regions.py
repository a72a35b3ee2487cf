"""Where in a source image a model may find what it reports."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from service.domain.files import RelativePath
from service.domain.value import Value

Share = Annotated[float, Field(ge=0, le=1)]
"""A length along an axis of the source image, as a share of its edge."""


class InnerRegion(Value):
    """All of the image but a border and the four corners."""

    kind: Literal["inner"] = "inner"
    border: float = Field(default=0.04, ge=0, lt=0.5)
    """Width of the border, as a share of each edge."""

    corner: float = Field(default=0.15, ge=0, lt=0.5)
    """Edge of each corner's square, as a share of each edge."""


class BoxRegion(Value):
    """A box of the source image."""

    kind: Literal["box"]
    top: Share
    left: Share
    bottom: Share
    right: Share

    @model_validator(mode="after")
    def _holds_something(self) -> "BoxRegion":
        """Require that the box is no line."""
        if not (self.top < self.bottom and self.left < self.right):
            raise ValueError("the box needs top < bottom and left < right")
        return self


class MaskRegion(Value):
    """A mask of the package, laid over the whole source image."""

    kind: Literal["mask"]
    path: RelativePath
    """A file of role ``region``: NPY, bool or 0 and 1, shape ``(rows, columns)`` of any size."""


Region = Annotated[InnerRegion | BoxRegion | MaskRegion, Field(discriminator="kind")]
"""Where in a source image the model may find what it reports."""
