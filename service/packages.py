"""Model packages: checked when they come, stored by digest, checked when they go."""

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from service.contents import Content, Contents, extract, inspect, is_as_listed
from service.domain.manifest import Manifest
from service.domain.value import Sha256, Slug, Value, Version, version_order
from service.errors.models import ModelUnavailable
from service.errors.requests import Conflict, UnknownModel
from service.manifests import Defect, defect, invalid, read_manifest
from service.paths import MANIFEST_NAME
from service.settings import LimitSettings
from service.store.base import BlobStore

PACKAGES = "models/packages"
INDEX = "models/index"
CONTENTS_NAME = "contents.json"


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
            root = extract(zip_path, Path(folder), limits)
            manifest, contents = inspect(root)
            if ref is not None and (unlike := [*_unlike(manifest, ref)]):
                raise invalid(unlike)
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

    def renew(self, record: PackageRecord) -> PackageRecord:
        """Register a package as of now: every worker that could not load it tries anew."""
        now = max(int(self._clock() * 1000), record.registered + 1)
        renewed = record.model_copy(update={"registered": now})
        path = _index_path(record.name, record.version)
        self._store.put(path, renewed.model_dump_json().encode())
        return renewed

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
            if not is_as_listed(target, each):
                target.parent.mkdir(parents=True, exist_ok=True)
                self._bring(package, each, target)
        return read_manifest((folder / MANIFEST_NAME).read_bytes())

    def _bring(self, package: str, content: Content, target: Path) -> None:
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            self._store.fetch(f"{_folder(package)}/files/{content.path}", part)
            if not is_as_listed(part, content):
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


def _unlike(manifest: Manifest, ref: str) -> Iterator[Defect]:
    """Yield the fields that say otherwise than the path under which a package was sent."""
    name, _, version = ref.partition("@")
    for field, said, sent in (("id", manifest.id, name), ("version", manifest.version, version)):
        if said != sent:
            yield defect(
                f"/{field}",
                f"model.yaml says '{said}', and the path under which it was sent '{sent}': make"
                " them agree.",
            )


def _other_content(known: PackageRecord) -> Conflict:
    return Conflict(
        "This model name and version is registered with other content. Raise the version, or, if"
        " nothing was made with it, remove it first (`whylight models remove`).",
        pointer="/version",
        registered=known.package,
    )


def _order(record: PackageRecord) -> tuple[str, tuple[int, ...]]:
    return record.name, version_order(record.version)


def _folder(package: str) -> str:
    return f"{PACKAGES}/{package}"


def _index_path(name: str, version: str) -> str:
    return f"{INDEX}/{name}/{version}.json"


def _unknown() -> UnknownModel:
    return UnknownModel("No such model is registered, or no such version of it.")


def _damaged() -> ModelUnavailable:
    return ModelUnavailable("The model's package is missing or damaged; register it again.")
