"""What the networks of MONAI share; they need the extra ``monai``.

Their parameters bear MONAI's own names, so that those of a bundle or of a
training script can be copied. MONAI is imported when the first of its networks
is built, because that takes seconds.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue
from torch import nn

Axes = Literal[1, 2, 3]
Count = Annotated[int, Field(ge=1, le=4096)]
Share = Annotated[float, Field(ge=0, lt=1)]
Edges = Count | tuple[Count, ...]
"""One number for all axes, or one for each."""

Part = str | tuple[str, dict[str, JsonValue]]
"""A norm or activation by its name in MONAI's own closed lists, with its arguments."""


def of_monai(module: str, name: str, *also: str) -> Callable[..., nn.Module]:
    """Return a constructor of MONAI's networks, imported when it is called.

    Raises
    ------
    ModuleNotFoundError
        MONAI, or a package that this network needs `also`, is not installed.
    """
    for each in ("monai", *also):
        if find_spec(each) is None:
            raise ModuleNotFoundError(f"{each} is not installed", name=each)

    def build(*arguments: Any, **named: Any) -> nn.Module:
        network: nn.Module = getattr(import_module(f"monai.networks.nets.{module}"), name)(
            *arguments, **named
        )
        return network

    return build
