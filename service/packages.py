"""Model packages: checked when they come, stored by digest, checked when they go.

A package is a zip archive or a folder with ``model.yaml``, the files that it
lists, and documents beside them. What it holds is content-addressed: the
package's digest is that of the list of its files with their digests, so the
same content packed twice is the same package.
"""

import hashlib
import os
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from service.archive import safe_entries
from service.certificates import read_records
from service.domain.files import File, RelativePath
from service.domain.manifest import Manifest
from service.domain.value import Sha256, Slug, Value, Version
from service.errors.models import ModelUnavailable
from service.errors.requests import Conflict, UnknownModel
from service.manifests import Defect, defect, invalid, read_manifest
from service.paths import MANIFEST_NAME
from service.precisions import read_precisions
from service.settings import LimitSettings
from service.sniff import contradiction, is_document
from service.store.base import BlobStore

PACKAGES = "models/packages"
INDEX = "models/index"
CONTENTS_NAME = "contents.json"
DOCUMENT_BYTES = 8 * 1024 * 1024
PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){0,7}")
DOCUMENT = re.compile(
    r"(README|CARD|LICENSE|NOTICE|CHANGELOG)(\.(md|txt))?|figures\.json|figures/[^/]+\.(png|json)"
)
"""Files that may lie in a package without being listed."""

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can tell


class Content(Value):
    """One file of a package as it is stored."""

    path: RelativePath
    sha256: Sha256
    bytes: int = Field(ge=0)


class Contents(Value):
    """Every file of a package, in the order of paths."""

    files: tuple[Content, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of one line a file: the package's identity."""
        lines = (f"{each.sha256} {each.bytes} {each.path}\n" for each in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


class PackageRecord(Value):
    """A registered model package."""

    name: Slug
    version: Version
    package: Sha256
    title: str
    registered: int
    """Milliseconds since the epoch."""

    bytes: int
    tenants: tuple[Slug, ...] = ()
    """To whom it is given; to all if empty."""


class ModelPackages:
    """The packages of an installation, kept in the store.

    Parameters
    ----------
    store
        Where they lie: files by digest under ``models/packages``, names and
        versions under ``models/index``.
    scratch
        Folder for work in hand; the system's if `None`.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        store: BlobStore,
        *,
        scratch: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._scratch = scratch
        self._clock = clock

    def add(
        self,
        zip_path: Path,
        limits: LimitSettings,
        *,
        ref: str | None = None,
        tenants: tuple[str, ...] | None = None,
    ) -> PackageRecord:
        """Check a package and register it; the same package again changes only `tenants`.

        Parameters
        ----------
        ref
            What the manifest must say it is, ``name@version``.
        tenants
            To whom it is given, to all if empty; left as it is if `None`.

        Raises
        ------
        InvalidPackage
            The manifest or a file does not hold; ``errors`` says where.
        UnsafeArchive, TooLarge
            The archive could harm or is over a limit.
        Conflict
            This name and version is registered with other content.
        """
        with tempfile.TemporaryDirectory(prefix="package-", dir=self._scratch) as folder:
            root = _extract(zip_path, Path(folder), limits)
            manifest, contents = inspect(root)
            if ref is not None and manifest.ref != ref:
                raise invalid([defect("", "The manifest has another id or version than the path.")])
            return self._register(root, manifest, contents, tenants)

    def _register(
        self, root: Path, manifest: Manifest, contents: Contents, tenants: tuple[str, ...] | None
    ) -> PackageRecord:
        record = PackageRecord(
            name=manifest.id,
            version=manifest.version,
            package=contents.digest,
            title=manifest.title,
            registered=int(self._clock() * 1000),
            bytes=sum(each.bytes for each in contents.files),
            tenants=tenants or (),
        )
        known = self._indexed(record.name, record.version)
        if known is not None and known.package != record.package:
            raise _other_content(known)
        # a package that is known is stored again: this mends a damaged one
        folder = _folder(contents.digest)
        for each in contents.files:
            self._store.put(f"{folder}/files/{each.path}", root / each.path)
        self._store.put(f"{folder}/{CONTENTS_NAME}", contents.model_dump_json().encode())
        return self._enter(record, tenants)

    def _enter(self, record: PackageRecord, tenants: tuple[str, ...] | None) -> PackageRecord:
        """Write the index entry; of one that is there only the tenants change."""
        path = _index_path(record.name, record.version)
        try:
            self._store.put(path, record.model_dump_json().encode(), overwrite=False)
        except FileExistsError:
            known = PackageRecord.model_validate_json(self._store.get(path))
            if known.package != record.package:
                raise _other_content(known) from None
            if tenants is None or tenants == known.tenants:
                return known
            record = known.model_copy(update={"tenants": tenants})
            self._store.put(path, record.model_dump_json().encode())
        return record

    def list(self) -> tuple[PackageRecord, ...]:
        """List every registered package by name and version."""
        return tuple(sorted(self._records(INDEX), key=_order))

    def get(self, name: str, version: str | None = None) -> PackageRecord:
        """Return a package, of the newest version if none is given.

        Raises
        ------
        UnknownModel
            No such name, or no such version of it.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
            raise _unknown()
        if version is None:
            found = sorted(self._records(f"{INDEX}/{name}"), key=_order)
            if not found:
                raise _unknown()
            return found[-1]
        record = self._indexed(name, version)
        if record is None:
            raise _unknown()
        return record

    def remove(self, name: str, version: str) -> None:
        """Take a package away, with its files unless another name has them too.

        Raises
        ------
        UnknownModel
            No such name, or no such version of it.
        """
        record = self.get(name, version)
        self._store.delete(_index_path(name, version))
        if all(each.package != record.package for each in self._records(INDEX)):
            self._store.purge(_folder(record.package))

    def manifest(self, package: str) -> Manifest:
        """Return a package's manifest, its digest checked.

        Raises
        ------
        ModelUnavailable
            The package is not there or is damaged.
        """
        listed = {each.path: each for each in self._contents(package).files}
        try:
            data = self._store.get(f"{_folder(package)}/files/{MANIFEST_NAME}")
        except FileNotFoundError:
            raise _damaged() from None
        if hashlib.sha256(data).hexdigest() != listed[MANIFEST_NAME].sha256:
            raise _damaged()
        return read_manifest(data)

    def unpack(self, package: str, folder: Path) -> Manifest:
        """Bring a package's files into a folder, each verified before it appears.

        Files that lie there already and are right are not fetched again.

        Raises
        ------
        ModelUnavailable
            The package is not there, or a file is not the one registered.
        """
        for each in self._contents(package).files:
            target = folder / each.path
            if not _is(target, each):
                target.parent.mkdir(parents=True, exist_ok=True)
                self._bring(package, each, target)
        return read_manifest((folder / MANIFEST_NAME).read_bytes())

    def _bring(self, package: str, content: Content, target: Path) -> None:
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            self._store.fetch(f"{_folder(package)}/files/{content.path}", part)
            if not _is(part, content):
                raise _damaged()
            part.replace(target)
        except FileNotFoundError:
            raise _damaged() from None
        finally:
            part.unlink(missing_ok=True)

    def _contents(self, package: str) -> Contents:
        if not re.fullmatch(r"[0-9a-f]{64}", package):
            raise _damaged()
        try:
            data = self._store.get(f"{_folder(package)}/{CONTENTS_NAME}")
            contents = Contents.model_validate_json(data)
        except (FileNotFoundError, ValidationError):
            raise _damaged() from None
        if contents.digest != package:
            raise _damaged()
        return contents

    def _indexed(self, name: str, version: str) -> PackageRecord | None:
        if not re.fullmatch(r"\d+\.\d+\.\d+", version, re.ASCII):
            return None
        try:
            data = self._store.get(_index_path(name, version))
        except FileNotFoundError:
            return None
        return PackageRecord.model_validate_json(data)

    def _records(self, folder: str) -> Iterator[PackageRecord]:
        for blob in self._store.list(folder):
            yield PackageRecord.model_validate_json(self._store.get(blob.path))


def inspect(root: Path) -> tuple[Manifest, Contents]:
    """Check a package's folder against its manifest.

    Raises
    ------
    InvalidPackage
        The manifest or a file does not hold; ``errors`` lists every defect.
    """
    path = root / MANIFEST_NAME
    if not path.is_file():
        raise invalid([defect("", "The package has no model.yaml at its root.")])
    manifest = read_manifest(path.read_bytes())
    defects = [
        defect(f"/files/{i}/{field}", message)
        for i, file in enumerate(manifest.files)
        if (found := _file_defect(root, file)) is not None
        for field, message in [found]
    ]
    listed = {file.path for file in manifest.files}
    if len(listed) != len(manifest.files):
        defects.append(defect("/files", "Each file may be listed once."))
    others = sorted(_paths(root) - listed - {MANIFEST_NAME})
    defects += [each for other in others if (each := _stranger(root, other)) is not None]
    if defects:
        raise invalid(defects)
    return manifest, _listing(root, listed | set(others) | {MANIFEST_NAME})


def pack(folder: Path, zip_path: Path) -> Manifest:
    """Write a package's folder as a zip archive: the same bytes for the same files.

    Raises
    ------
    InvalidPackage
        The folder is no valid package.
    """
    manifest, contents = inspect(folder)
    with zipfile.ZipFile(zip_path, "w", zipfile.ZIP_STORED) as archive:
        for each in contents.files:
            entry = zipfile.ZipInfo(each.path, EPOCH)
            entry.external_attr = 0o644 << 16
            entry.file_size = each.bytes
            with (folder / each.path).open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target)
    return manifest


def _extract(zip_path: Path, folder: Path, limits: LimitSettings) -> Path:
    """Unpack an archive; return the folder in it that holds the manifest."""
    with zip_path.open("rb") as file:
        entries = safe_entries(
            file,
            max_entries=limits.archive_entries,
            max_ratio=limits.archive_ratio,
            free_bytes=limits.archive_free_bytes,
            max_total_bytes=limits.body_bytes,
        )
        for number, (name, stream) in enumerate(entries, 1):
            if not PATH.fullmatch(name):
                raise invalid([defect("", f"File {number} of the archive has an unusable name.")])
            try:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with (folder / name).open("xb") as target:
                    shutil.copyfileobj(stream, target)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                message = f"File {number} of the archive has the name of a folder."
                raise invalid([defect("", message)]) from None
    inner = list(folder.iterdir())
    if len(inner) == 1 and inner[0].is_dir():
        return inner[0]
    return folder


def _file_defect(root: Path, file: File) -> tuple[str, str] | None:
    """Return the field that does not hold for a listed file, and why; else `None`."""
    path = root / file.path
    if not PATH.fullmatch(file.path) or not path.is_file():
        return "path", "The package has no such file."
    size = path.stat().st_size
    if size != file.bytes:
        return "bytes", f"The file has {size} bytes; correct the number or the file."
    if _sha256(path) != file.sha256:
        return "sha256", "The file has another SHA-256; correct the digest or the file."
    if message := contradiction(path, file.format):
        return "format", message
    if not _holds_records(file, path):
        return "path", "The file is no JSON list of records as this version writes them."
    return None


def _holds_records(file: File, path: Path) -> bool:
    """Tell whether a file can be read as records of methods, if it is said to hold some."""
    read = {"certificates": read_records, "precisions": read_precisions}.get(file.role)
    try:
        if read is not None:
            read(path.read_bytes())
    except ValidationError:
        return False
    return True


def _stranger(root: Path, path: str) -> Defect | None:
    """Return the defect of a file that is not listed, unless it is a document."""
    if not DOCUMENT.fullmatch(path):
        return defect("/files", f"'{path}' is not listed; list it or remove it.")
    if (root / path).stat().st_size > DOCUMENT_BYTES or not is_document(root / path):
        return defect("/files", f"'{path}' is no document (text or PNG of at most 8 MiB).")
    return None


def _paths(root: Path) -> set[str]:
    return {each.relative_to(root).as_posix() for each in root.rglob("*") if not each.is_dir()}


def _listing(root: Path, paths: set[str]) -> Contents:
    return Contents(
        files=tuple(
            Content(path=path, sha256=_sha256(root / path), bytes=(root / path).stat().st_size)
            for path in sorted(paths)
        )
    )


def _is(path: Path, content: Content) -> bool:
    """Tell whether a file is, to the byte, the one that was registered."""
    same_size = path.is_file() and path.stat().st_size == content.bytes
    return same_size and _sha256(path) == content.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _other_content(known: PackageRecord) -> Conflict:
    return Conflict(
        "This model name and version is registered with other content; raise the version.",
        pointer="/version",
        registered=known.package,
    )


def _order(record: PackageRecord) -> tuple[str, tuple[int, ...]]:
    return record.name, tuple(int(part) for part in record.version.split("."))


def _folder(package: str) -> str:
    return f"{PACKAGES}/{package}"


def _index_path(name: str, version: str) -> str:
    return f"{INDEX}/{name}/{version}.json"


def _unknown() -> UnknownModel:
    return UnknownModel("No such model is registered, or no such version of it.")


def _damaged() -> ModelUnavailable:
    return ModelUnavailable("The model's package is missing or damaged; register it again.")
