"""The corpus of real DICOM files, when this machine has it."""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from service.dicom.header import Header, read_header
from service.errors.base import WhylightError

VARIABLE = "WHYLIGHT_CORPUS"
FOLDER = os.environ.get(VARIABLE)
LIMIT = 128 << 20
QUICK = 4 << 20
"""Samples of an image that all programs are done with in seconds."""

FILES: tuple[Path, ...] = (
    tuple(
        sorted(
            path
            for path in Path(FOLDER).rglob("*")
            if path.is_file() and path.suffix != ".md" and not path.name.startswith(".")
        )
    )
    if FOLDER
    else ()
)
REASON = f"{VARIABLE} is not set: real DICOM files are not at hand"


@cache
def header(path: Path) -> Header | None:
    """Return the header of a file of which maps can be made; `None` of others."""
    try:
        return read_header(path, max_samples=LIMIT)
    except WhylightError:
        return None


def covering() -> tuple[Path, ...]:
    """Return images, small ones first, in which each kind of image comes once at least.

    Those that other programs take minutes for are left to `make conformance`.
    """
    chosen: list[Path] = []
    seen: set[tuple[str, object]] = set()
    for path in sorted(FILES, key=lambda each: each.stat().st_size):
        found = header(path)
        if found is None or found.samples > QUICK:
            continue
        if not (kinds := set(_kinds(found))) <= seen:
            chosen.append(path)
            seen |= kinds
    return _without_spare(chosen, seen)


def _without_spare(paths: Sequence[Path], kinds: set[tuple[str, object]]) -> tuple[Path, ...]:
    """Leave out, the largest first, each whose kinds the others have too."""
    left = list(paths)
    for path in reversed(paths):
        others = [each for each in left if each != path]
        if {kind for each in others for kind in _kinds(header(each))} == kinds:
            left = others
    return tuple(left)


def _kinds(found: Header | None) -> Iterator[tuple[str, object]]:
    if found is None:
        return
    yield "class", found.sop_class_uid
    yield "modality", found.modality
    yield "syntax", found.transfer_syntax_uid
    yield "photometric", found.photometric_interpretation
    yield "sample", (found.bits_allocated, found.pixel_representation)
    yield "frames", found.number_of_frames > 1


def name(path: Path) -> str:
    """Tell a file by its last two parts."""
    return "/".join(path.parts[-2:])[-70:]


def find(ending: str) -> Path:
    """Return the one file whose path ends so."""
    (path,) = (each for each in FILES if str(each).endswith(ending))
    return path
