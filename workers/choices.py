"""What a manifest chooses from a family of parts: a name, and parameters that fit it."""

from typing import Final, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from service.errors.models import InvalidPackage
from service.manifests import Defect, defect, unfit
from service.registry import Registry
from service.wording import nearest

P = TypeVar("P", bound=BaseModel)

SHOWN: Final = 3
"""Defects that the sentence tells; the facts hold all."""


def chosen(
    parts: Registry[P], what: str, name: str, parameters: dict[str, JsonValue], pointer: str
) -> P:
    """Return the part that a manifest names, with its parameters.

    Parameters
    ----------
    what
        What people call such a part: ``step``, ``network``.
    pointer
        JSON Pointer to the choice in the manifest.

    Raises
    ------
    InvalidPackage
        There is no such part, or it does not take these parameters; ``errors`` lists
        every defect as ``{pointer, message}``.
    """
    if name not in parts:
        raise _refused([defect(f"{pointer}/name", _unknown(parts, what, name))])
    try:
        return parts[name].model_validate(parameters)
    except ValidationError as error:
        fields = parts[name].model_fields
        raise _refused(unfit(error, f"{pointer}/parameters", what, fields)) from None


def _unknown(parts: Registry[P], what: str, name: str) -> str:
    """Return that there is no part of this name, and which there are."""
    if name in parts.unavailable:
        return f"The {what} '{name}' is not available here. {parts.unavailable[name]}"
    near = nearest(name, parts)
    return f"There is no {what} '{name}'; expected one of {', '.join(parts)}.{near}"


def _refused(defects: list[Defect]) -> InvalidPackage:
    told = [f"{each['pointer']}: {each['message']}" for each in defects[:SHOWN]]
    return InvalidPackage(
        f"model.yaml is not valid. {' '.join(told)}",
        pointer=str(defects[0]["pointer"]),
        errors=[*defects],
    )
