"""A manifest that is begun, and what a person must still say."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from service.errors.models import InvalidPackage
from service.manifests import defect, invalid

LARGEST: Final = 4 * 1024 * 1024
"""Bytes of the largest document that is read."""

MODALITIES: Final = {
    "ct": "CT",
    "mr": "MR",
    "mri": "MR",
    "t1": "MR",
    "t2": "MR",
    "flair": "MR",
    "adc": "MR",
    "dwi": "MR",
    "pet": "PT",
    "pt": "PT",
    "xray": "DX",
    "x-ray": "DX",
    "cr": "CR",
    "dx": "DX",
    "mg": "MG",
    "mammography": "MG",
    "us": "US",
    "ultrasound": "US",
}
"""Words for modalities, in small letters, as DICOM has them."""


@dataclass(slots=True)
class Draft:
    """A manifest that is begun; what nobody said is left out, never made up."""

    fields: dict[str, Any]
    notes: dict[str, str] = field(default_factory=dict)
    """By JSON pointer: what a person must say, and where it may be found."""

    looks: dict[str, str] = field(default_factory=dict)
    """By JSON pointer: what was taken over, and how a person sees that it is right."""

    files: list[tuple[Path, str, str]] = field(default_factory=list)
    """Files that go into the package as they are, each with role and format."""


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON document, an object; nothing in it is evaluated.

    Raises
    ------
    InvalidPackage
        It is not there, too large, or no JSON object.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise _unreadable(path)
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        raise _unreadable(path) from None
    if not isinstance(found, dict):
        raise _unreadable(path)
    return found


def _unreadable(path: Path) -> InvalidPackage:
    return invalid([defect("", f"{path.name} is missing, larger than 4 MiB or no JSON object.")])


def slug(text: str) -> str:
    """Return a text as a key: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64].strip("-")


def ask_license(source: str, said: str | None) -> str:
    """Return what asks for a license, with what a document says of it, which need be no SPDX."""
    told = f"says {said!r}" if said else "names none"
    return f"Give an SPDX expression, such as 'Apache-2.0'; {source} {told}."


def version(text: object) -> dict[str, Any]:
    """Return the manifest's version, if a text is one of three numbers."""
    fit = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", str(text))
    return {"version": fit[0]} if fit else {}


def text(document: Mapping[str, Any], *names: str) -> str | None:
    """Return the first of some fields that holds text."""
    values = (document.get(name) for name in names)
    return next((each.strip() for each in values if isinstance(each, str) and each.strip()), None)


def modalities(words: Iterable[object]) -> list[str]:
    """Return the modalities that some words name."""
    found = (MODALITIES.get(str(each).strip().lower()) for each in words)
    return sorted({each for each in found if each})


def image(axes: int, name: str, seen: list[str], steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an input of two or three spatial axes."""
    accept: dict[str, Any] = {"modalities": seen} if seen else {}
    if axes == len("zyx"):
        accept["volume"] = {}
        return {"name": name, "kind": "volume", "layout": "NCDHW", "accept": accept, "steps": steps}
    return {"name": name, "accept": accept, "steps": steps}


def classes(labels: Iterable[str]) -> list[dict[str, Any]]:
    """Return classes in the order of their labels."""
    return [{"key": slug(each), "label": each} for each in labels]


def listed(path: Path, role: str, format_: str) -> dict[str, Any]:
    """Return a file's entry in the manifest."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "role": role,
        "format": format_,
        "path": path.name,
        "sha256": digest,
        "bytes": path.stat().st_size,
    }
