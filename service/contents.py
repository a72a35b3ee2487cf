"""What a model package holds, held against its manifest.

A package is a zip archive or a folder with ``model.yaml``, the files that it
lists, and documents beside them. What it holds is content-addressed: the
package's digest is that of the list of its files with their digests, so the
same content packed twice is the same package.
"""

import hashlib
import re
import shutil
import zipfile
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from pydantic import Field, ValidationError

from service.archive import safe_entries
from service.domain.certificate import MethodRecord
from service.domain.files import File, RelativePath
from service.domain.manifest import Manifest
from service.domain.precision import PrecisionRecord
from service.domain.value import Sha256, Value
from service.manifests import Defect, defect, invalid, read_manifest
from service.paths import MANIFEST_NAME
from service.records import read_listed
from service.settings import LimitSettings
from service.sniff import contradiction, is_document

DOCUMENT_BYTES = 8 * 1024 * 1024
PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99}){0,7}")
DOCUMENT = re.compile(
    r"(README|CARD|LICENSE|NOTICE|CHANGELOG)(\.(md|txt))?|figures\.json|figures/[^/]+\.(png|json)"
)
"""Files that may lie in a package without being listed."""

MISSING = "The package has no such file, or a link in its place; put the file itself there."

LICENSE = (
    "Expected an SPDX expression of listed licenses, such as 'Apache-2.0', or 'LicenseRef-' and a"
    " name of your own, such as 'LicenseRef-Proprietary'."
)

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
    if not _is_license(manifest.license):
        defects.append(defect("/license", LICENSE))
    listed = {file.path for file in manifest.files}
    if len(listed) != len(manifest.files):
        defects.append(defect("/files", "Each file may be listed once."))
    others = sorted(_paths(root) - listed - {MANIFEST_NAME})
    defects += [each for other in others if (each := _stranger(root, other)) is not None]
    if defects:
        raise invalid(defects)
    return manifest, _listing(root, listed | set(others) | {MANIFEST_NAME})


def _is_license(text: str) -> bool:
    """Tell whether a text is an SPDX expression of listed licenses."""
    try:
        canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        return False
    return True


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


def extract(zip_path: Path, folder: Path, limits: LimitSettings) -> Path:
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
    if not PATH.fullmatch(file.path) or not path.is_file() or _is_link(root, file.path):
        return "path", MISSING
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
    try:
        if file.role == "certificates":
            read_listed(path.read_bytes(), MethodRecord)
        elif file.role == "precisions":
            read_listed(path.read_bytes(), PrecisionRecord)
    except ValidationError:
        return False
    return True


def _is_link(root: Path, path: str) -> bool:
    """Tell whether what lies at a path of a package lies elsewhere."""
    return (root / path).resolve() != root.resolve() / path


def _stranger(root: Path, path: str) -> Defect | None:
    """Return the defect of a file that is not listed, unless it is a document."""
    if not DOCUMENT.fullmatch(path):
        return defect("/files", f"'{path}' is not listed; list it or remove it.")
    if _is_link(root, path):
        return defect("/files", f"'{path}' is a link; put the file itself there.")
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


def is_as_listed(path: Path, content: Content) -> bool:
    """Tell whether a file is, to the byte, the one that was registered."""
    same_size = path.is_file() and path.stat().st_size == content.bytes
    return same_size and _sha256(path) == content.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
