"""The base of every value that crosses a wall of the house."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""A name out of the catalog, such as ``grad_cam``."""

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""A short name that is safe in paths and in URLs, such as a model's."""

Version = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$")]
"""A semantic version without suffixes."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest in hexadecimal."""

TAG = "kind:"
"""What the tags of a union's kinds begin with."""


class Value(BaseModel):
    """A frozen value with strict fields: an unknown one is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
