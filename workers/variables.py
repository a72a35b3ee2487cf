"""Where a patient's values come from: the request, the image's header, or the default."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pydicom
from pydantic import JsonValue
from pydicom.dataset import Dataset

from service.domain.variable import Origin, Variable, VariableFact
from service.errors.studies import MissingValue

Told = Mapping[str, float | str | None]
"""What a header says of each variable, by key; `None` for nothing usable."""

DAYS: Final = {"D": 1.0, "W": 7.0, "M": 365.25 / 12, "Y": 365.25}
"""Days of each unit of an Age String (PS3.5, section 6.2)."""

AGES: Final = {"d": "D", "wk": "W", "mo": "M", "a": "Y"}
"""The same units as of UCUM."""

SCALES: Final = {"m": 1.0, "cm": 100.0, "kg": 1.0, "g": 1000.0}
"""Of Patient's Size, in meters, and Patient's Weight, in kilograms."""


def told(header: Path, variables: Sequence[Variable]) -> dict[str, float | str | None]:
    """Return what an image's header says of each variable.

    Parameters
    ----------
    header
        The DICOM data set without its pixel data.
    """
    if not any(each.source for each in variables):
        return {}
    ds = pydicom.dcmread(header, force=True)
    return {each.key: _told(ds, each) for each in variables if each.source}


def beside(
    variables: Sequence[Variable],
    asked: Mapping[str, float | str],
    *headers: Told,
) -> tuple[VariableFact, ...]:
    """Return the values that the model is given, in their own units.

    Parameters
    ----------
    asked
        What the request says, by key.
    headers
        As of `told`, of each image of the patient that the model is given.

    Raises
    ------
    MissingValue
        One is nowhere given, what is given is off its range, or headers contradict each other.
    """
    found: dict[str, tuple[float, Origin] | None] = {}
    refused: list[JsonValue] = []
    contradicted: list[JsonValue] = []
    for each in variables:
        said = {header[each.key] for header in headers if header.get(each.key) is not None}
        if len(said) > 1 and each.key not in asked:
            contradicted.append(each.key)
            continue
        try:
            found[each.key] = _chosen(each, asked.get(each.key), next(iter(said), None))
        except ValueError:
            refused.append(each.key)
    missing: list[JsonValue] = [key for key, chosen in found.items() if chosen is None]
    if missing or refused or contradicted:
        raise MissingValue(
            "The model takes values beside the image that neither the request nor the image's"
            " header gives as it needs them; give them in 'values', within their ranges.",
            missing=missing,
            off_range=refused,
            contradicted=contradicted,
        )
    return tuple(
        VariableFact(
            key=each.key,
            label=each.label,
            unit=each.unit,
            value=chosen[0],
            baseline=each.baseline,
            origin=chosen[1],
        )
        for each in variables
        if (chosen := found[each.key]) is not None
    )


def _chosen(
    variable: Variable, asked: float | str | None, told: float | str | None
) -> tuple[float, Origin] | None:
    """Return the number that counts and where it came from; `None` if there is none.

    Raises
    ------
    ValueError
        What was given is off the variable's range.
    """
    if asked is not None:
        return variable.number(asked), "request"
    if told is not None:
        return variable.number(told), "dicom"
    return None if variable.default is None else (variable.default, "default")


def _told(ds: Dataset, variable: Variable) -> float | str | None:
    """Return one attribute in the variable's unit; `None` if it is missing or cannot be read."""
    assert variable.source is not None  # noqa: S101 - the caller looked
    try:
        value: Any = ds.get(variable.source)
        if value is None or value == "":
            return None
        if variable.source == "PatientSex":
            return str(value).strip()
        if variable.source == "PatientAge":
            return _age(str(value), variable.unit)
        return float(value) * SCALES[variable.unit]
    except (ValueError, TypeError, KeyError):
        return None


def _age(text: str, unit: str) -> float | None:
    """Return an Age String, such as ``034Y``, in another unit; of its own it is exact."""
    found = re.fullmatch(r"(\d{3})([DWMY])", text.strip())
    if found is None:
        return None
    number, own = int(found[1]), found[2]
    return float(number) if own == AGES[unit] else number * DAYS[own] / DAYS[AGES[unit]]
