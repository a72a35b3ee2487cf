"""The objects of an explanation, sent again: the service may have its study no more."""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from service.command.client import Client
from service.command.failure import CommandFailure
from service.domain.explanation import Explanation, Provenance
from service.domain.value import Sha256

ZIP: Final = b"PK\x03\x04"
"""How a zip archive with entries begins (APPNOTE 4.3.7)."""

NAMING: Final = frozenset({"instance", "instances", "series", "similarity_to", "view", "views"})
"""Fields of a request, and of its targets and annotations, that name objects of a study."""

FEWER: Final = (
    "Name a zip archive or a folder with every object that went in, to the byte: each image, and"
    " each segmentation or second image that a target names."
)


@dataclass(frozen=True, slots=True)
class Resent:
    """A study in which objects have other names than then."""

    study: str
    names: Mapping[str, str] = field(default_factory=dict)
    """By their names then; those of their series too."""

    def request(self, then: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request of then as it asks for the same of this study."""
        return {k: self._renamed(each, names=k in NAMING) for k, each in then.items()} | {
            "study": self.study
        }

    def key(self, then: str) -> str:
        """Return the key of a result's target, which may hold an object's name."""
        return "-".join(self.names.get(part, part) for part in then.split("-"))

    def _renamed(self, value: Any, *, names: bool) -> Any:
        match value:
            case dict():
                return {k: self._renamed(v, names=names or k in NAMING) for k, v in value.items()}
            case list():
                return [self._renamed(each, names=names) for each in value]
            case str() if names:
                return self.names.get(value, value)
            case _:
                return value


def resend(client: Client, original: Explanation, ran: Provenance, place: Path) -> Resent:
    """Send what went into an explanation, out of a file, a zip archive or a folder.

    Raises
    ------
    CommandFailure
        An object is not there to the byte, or the service does not keep it.
    """
    wanted = _wanted(original, ran)
    there = _found(place, {*wanted.values()})
    found = {each: there[each] for each in wanted.values() if each in there}
    if lacking := len({*wanted.values()} - found.keys()):
        if len(wanted) == 1:
            raise CommandFailure("What --study names is not the image that was explained.")
        raise CommandFailure(
            f"{lacking} of the {len(wanted)} objects that went into the explanation are not in what"
            " --study names.",
            FEWER,
        )
    places = {digest: number for number, digest in enumerate(found, 1)}
    body = client.json(
        "POST",
        "/v1/studies",
        content=_archive(found),
        headers={"Content-Type": "application/zip"},
    )
    kept = {each["part"]: each for each in body["instances"]}
    if len(kept) < len(found):
        raise CommandFailure("The service did not keep every object that went in.")
    names = {name: kept[places[digest]]["id"] for name, digest in wanted.items()}
    if original.request.series is not None:
        first = kept[places[ran.instances[0].sha256]]
        names[original.request.series] = first["series"]
    return Resent(body["id"], names)


def _wanted(original: Explanation, ran: Provenance) -> dict[str, Sha256]:
    """Return the digests of the objects that maps were made of, by their names, in that order."""
    found = {each.id: each.sha256 for each in ran.instances}
    for target in (each.target for each in original.results):
        if target is not None and target.again is not None and target.beside is not None:
            alone = original.request.model_copy(update={"targets": (target.again,)})
            found |= dict.fromkeys(alone.beside, target.beside)
    return dict(sorted(found.items()))


def _found(place: Path, wanted: set[Sha256]) -> dict[Sha256, bytes]:
    """Return the objects that are wanted, by their digests."""
    found: dict[Sha256, bytes] = {}
    try:
        for data in _files(place):
            digest = hashlib.sha256(data).hexdigest()
            if digest in wanted:
                found[digest] = data
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        raise CommandFailure("What --study names cannot be read.", FEWER) from None
    return found


def _files(place: Path) -> Iterator[bytes]:
    """Yield the contents of a file, or of every file of a folder or an archive."""
    if place.is_dir():
        yield from (each.read_bytes() for each in sorted(place.rglob("*")) if each.is_file())
        return
    data = place.read_bytes()
    if not data.startswith(ZIP):
        yield data
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        yield from (archive.read(each) for each in archive.infolist() if not each.is_dir())


def _archive(objects: Mapping[Sha256, bytes]) -> bytes:
    """Return objects as an archive, in their order."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number, data in enumerate(objects.values(), 1):
            archive.writestr(f"{number}.dcm", data)
    return stream.getvalue()
