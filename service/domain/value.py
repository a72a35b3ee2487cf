"""The base of every value that crosses a wall of the house."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, Strict, StringConstraints

NAME: Final = r"^[a-z][a-z0-9_]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME)]
"""A name out of the catalog, such as ``grad_cam``."""

SLUG: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Slug = Annotated[str, StringConstraints(pattern=SLUG)]
"""A short name that is safe in paths and in URLs, such as a model's."""

VERSION: Final = r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$"
Version = Annotated[str, StringConstraints(pattern=VERSION)]
"""A semantic version without suffixes."""

SHA256: Final = r"^[0-9a-f]{64}$"
Sha256 = Annotated[str, StringConstraints(pattern=SHA256)]
"""A SHA-256 digest in hexadecimal."""

Whole = Annotated[int, Strict()]
"""A number without a fraction; ``"3"``, ``3.0`` and ``true`` are none."""

Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
"""A finite number; ``"3"`` and ``true`` are none."""

Flag = Annotated[bool, Strict()]
"""True or false; ``"yes"`` and ``1`` are neither."""

TAG = "kind:"
"""What the tags of a union's kinds begin with."""


def version_order(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, by which versions are newer and older."""
    return tuple(int(part) for part in version.split("."))


class Value(BaseModel):
    """A frozen value with strict fields: an unknown one is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
