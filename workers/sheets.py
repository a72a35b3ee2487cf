"""One map to its files, inside a slot: what the render stage sends there."""

import hashlib
from collections.abc import Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Final

from service.domain.artifact import Artifact
from service.domain.explanation import Omission
from service.errors.jobs import ResultDamaged
from service.errors.requests import UnknownFormat
from service.errors.studies import FormatNotApplicable
from workers.binding import demand_same
from workers.formats.base import FORMATS
from workers.formats.record import MapRecord
from workers.formats.sheet import Sheet

PART: Final = 1 << 24
"""Bytes of a file that are mapped into memory at a time."""


def write(
    sheet: Sheet, formats: Sequence[str], folder: Path
) -> tuple[list[tuple[Artifact, Path]], list[Omission]]:
    """Write `sheet` in each of `formats` into `folder`.

    Returns
    -------
    files
        The artifacts with their files, in the order of `formats`; of one format there may be
        several.
    omitted
        Those of `formats` that do not suit this map, and why.

    Raises
    ------
    UnknownFormat
        A format does not exist.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UnknownFormat("No such artifact format.", format=unknown[0], known=list(FORMATS))
    written: dict[str, list[tuple[Artifact, Path]]] = {}
    omitted = []
    for name in sorted(dict.fromkeys(formats), key=lambda each: FORMATS[each].last):
        part, record = FORMATS[name], sheet.record
        file = folder / f"{record.method}.{record.target.key}.{part.extension}"
        try:
            files = part().write_all(sheet, file)
        except FormatNotApplicable as error:
            omitted.append(Omission(name=file.name, format=name, reason=error.failure()))
        else:
            written[name] = [
                (_artifact(record, name, part.media_type, each), each) for each in files
            ]
    found = [each for name in dict.fromkeys(formats) for each in written.get(name, ())]
    return found, omitted


def _artifact(record: MapRecord, format_: str, media_type: str, file: Path) -> Artifact:
    return Artifact(
        name=file.name,
        format=format_,
        method=record.method,
        target=record.target.key,
        media_type=media_type,
        bytes=file.stat().st_size,
        sha256=_digest(file),
    )


def _digest(file: Path) -> str:
    """Return a file's SHA-256; it is looked at where it lies, part by part, and not copied."""
    digest, size = hashlib.sha256(), file.stat().st_size
    with file.open("rb") as stream:
        for start in range(0, size, PART):
            length = min(PART, size - start)
            with mmap(stream.fileno(), length, access=ACCESS_READ, offset=start) as part:
                digest.update(part)
    return digest.hexdigest()


def task(message: dict[str, Any]) -> dict[str, Any]:
    """Write one map, inside a slot."""
    sheet = Sheet(
        record=MapRecord.model_validate(message["record"]),
        map_file=Path(message["map"]),
        display_file=Path(message["display"]),
        header_file=Path(message["header"]),
    )
    _demand_unchanged(sheet, message["map_digest"])
    written, omitted = write(sheet, message["formats"], Path(message["folder"]))
    return {
        "omitted": [each.model_dump(mode="json") for each in omitted],
        "artifacts": [artifact.model_dump(mode="json") for artifact, _ in written],
        "files": [str(file) for _, file in written],
    }


def _demand_unchanged(sheet: Sheet, digest: str) -> None:
    """Hold the map's file against its digest; the values read here are those drawn."""
    try:
        values = sheet.values
    except (OSError, EOFError, ValueError):
        raise ResultDamaged("A map cannot be read any more, so nothing was drawn.") from None
    demand_same(values, digest)
