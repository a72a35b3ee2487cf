"""Model packages: registered once, found by name, handed out verified."""

import hashlib
from pathlib import Path

import pytest

from service.contents import pack
from service.errors.models import InvalidPackage, ModelUnavailable
from service.errors.requests import Conflict, TooLarge, UnknownModel
from service.packages import ModelPackages, PackageRecord
from service.settings import LimitSettings
from service.store.objects import ObjectBlobStore
from tests.support.packages import manifest, write_manifest, write_package, zipped

LIMITS = LimitSettings()


def add(packages: ModelPackages, folder: Path, **changes: object) -> PackageRecord:
    write_package(folder, **changes)
    return packages.add(zipped(folder, folder.with_suffix(".zip")), LIMITS)


def test_a_package_is_registered_under_its_name(packages: ModelPackages, folder: Path) -> None:
    record = add(packages, folder)
    assert (record.name, record.version, record.title) == ("small", "1.0.0", "A small model")
    assert record.registered == 1_700_000_000_000
    assert packages.get("small") == packages.get("small", "1.0.0") == record
    assert packages.list() == (record,)


@pytest.mark.parametrize("top", ["", "my-model/"])
def test_a_package_may_lie_in_one_folder_of_the_archive(
    packages: ModelPackages, folder: Path, tmp_path: Path, top: str
) -> None:
    record = packages.add(zipped(folder, tmp_path / "a.zip", top), LIMITS)
    pack(folder, tmp_path / "b.zip")
    assert packages.add(tmp_path / "b.zip", LIMITS) == record


def test_the_same_content_is_the_same_package(packages: ModelPackages, folder: Path) -> None:
    assert add(packages, folder) == add(packages, folder)
    assert len(packages.list()) == 1


def test_the_same_version_with_other_content_is_a_conflict(
    packages: ModelPackages, folder: Path
) -> None:
    first = add(packages, folder)
    with pytest.raises(Conflict):
        add(packages, folder, title="Another title")
    assert packages.get("small") == first


def test_the_newest_version_is_meant_when_none_is_given(
    packages: ModelPackages, folder: Path
) -> None:
    for version in ("1.9.0", "1.10.0", "1.2.11"):
        add(packages, folder, version=version)
    assert packages.get("small").version == "1.10.0"
    assert [each.version for each in packages.list()] == ["1.2.11", "1.9.0", "1.10.0"]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("none", None),
        ("small", "2.0.0"),
        ("small", "../1.0.0"),
        ("../index", None),
        ("", None),
        ("small", "1.0.0\n"),
        ("smal", None),
    ],
)
def test_an_unknown_model_is_told(
    packages: ModelPackages, folder: Path, name: str, version: str | None
) -> None:
    add(packages, folder)
    with pytest.raises(UnknownModel):
        packages.get(name, version)


def test_unpacking_brings_every_file(packages: ModelPackages, folder: Path, tmp_path: Path) -> None:
    (folder / "CARD.md").write_text("What it is.")
    record = add(packages, folder)
    found = packages.unpack(record.package, tmp_path / "out")
    assert found.ref == "small@1.0.0"
    assert packages.manifest(record.package) == found
    sent = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    out = tmp_path / "out"
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} == sent


def test_unpacking_again_mends_what_was_changed(
    packages: ModelPackages, folder: Path, tmp_path: Path
) -> None:
    record = add(packages, folder)
    packages.unpack(record.package, tmp_path / "out")
    weights = tmp_path / "out" / "weights.safetensors"
    weights.write_bytes(b"x" * weights.stat().st_size)
    packages.unpack(record.package, tmp_path / "out")
    assert weights.read_bytes() == (folder / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["files/weights.safetensors", "files/model.yaml", "contents.json"])
@pytest.mark.parametrize("damage", ["changed", "shortened", "gone"])
def test_a_damaged_package_is_refused_before_anything_reads_it(
    packages: ModelPackages, store: ObjectBlobStore, folder: Path, name: str, damage: str
) -> None:
    record = add(packages, folder)
    path = f"models/packages/{record.package}/{name}"
    data = store.get(path)
    if damage == "gone":
        store.delete(path)
    else:
        store.put(path, data[:-1] if damage == "shortened" else data[:-1] + b"\x80")
    out = folder.parent / "out"
    with pytest.raises(ModelUnavailable):
        packages.unpack(record.package, out)
    assert not list(out.rglob(name.removeprefix("files/")))
    assert not list(out.rglob("*.part"))


def test_a_doctored_list_of_files_does_not_help(
    packages: ModelPackages, store: ObjectBlobStore, folder: Path, tmp_path: Path
) -> None:
    record = add(packages, folder)
    base = f"models/packages/{record.package}"
    old = (folder / "weights.safetensors").read_bytes()
    evil = b"\x80\x04" + old[2:]
    store.put(f"{base}/files/weights.safetensors", evil)
    right, wrong = (hashlib.sha256(each).hexdigest().encode() for each in (old, evil))
    store.put(f"{base}/contents.json", store.get(f"{base}/contents.json").replace(right, wrong))
    with pytest.raises(ModelUnavailable):
        packages.unpack(record.package, tmp_path / "out")


@pytest.mark.parametrize("package", ["0" * 64, "../../keys", "", "A" * 64])
def test_a_package_that_is_not_there_cannot_be_unpacked(
    packages: ModelPackages, tmp_path: Path, package: str
) -> None:
    with pytest.raises(ModelUnavailable):
        packages.unpack(package, tmp_path / "out")
    with pytest.raises(ModelUnavailable):
        packages.manifest(package)


def test_registering_again_mends_a_damaged_package(
    packages: ModelPackages, store: ObjectBlobStore, folder: Path, tmp_path: Path
) -> None:
    record = add(packages, folder)
    store.delete(f"models/packages/{record.package}/files/weights.safetensors")
    assert add(packages, folder) == record
    packages.unpack(record.package, tmp_path / "out")


def test_a_removed_package_leaves_nothing(
    packages: ModelPackages, store: ObjectBlobStore, folder: Path
) -> None:
    add(packages, folder)
    packages.remove("small", "1.0.0")
    with pytest.raises(UnknownModel):
        packages.get("small")
    with pytest.raises(UnknownModel):
        packages.remove("small", "1.0.0")
    assert list(store.list("models")) == []


def test_removing_one_version_leaves_the_others(
    packages: ModelPackages, folder: Path, tmp_path: Path
) -> None:
    add(packages, folder)
    kept = add(packages, folder, version="2.0.0")
    packages.remove("small", "1.0.0")
    assert packages.list() == (kept,)
    packages.unpack(kept.package, tmp_path / "out")


def test_a_refused_package_leaves_nothing(
    packages: ModelPackages, store: ObjectBlobStore, folder: Path
) -> None:
    (folder / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(InvalidPackage):
        packages.add(zipped(folder, folder.with_suffix(".zip")), LIMITS)
    assert list(store.list("models")) == []


def test_a_package_over_the_limit_is_refused(packages: ModelPackages, folder: Path) -> None:
    with pytest.raises(TooLarge):
        packages.add(zipped(folder, folder.with_suffix(".zip")), LimitSettings(body_bytes=200))


def test_packing_gives_the_same_bytes_each_time(folder: Path, tmp_path: Path) -> None:
    assert pack(folder, tmp_path / "1.zip").ref == "small@1.0.0"
    (folder / "weights.safetensors").touch()
    pack(folder, tmp_path / "2.zip")
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


def test_an_invalid_folder_is_not_packed(folder: Path, tmp_path: Path) -> None:
    write_manifest(folder, {**manifest(folder), "version": "latest"})
    with pytest.raises(InvalidPackage):
        pack(folder, tmp_path / "1.zip")
    assert not (tmp_path / "1.zip").exists()


def test_to_whom_a_package_is_given_can_change_and_its_content_cannot(
    packages: ModelPackages, folder: Path
) -> None:
    archive = zipped(folder, folder.with_suffix(".zip"))
    assert packages.add(archive, LIMITS).tenants == ()
    assert packages.add(archive, LIMITS, tenants=("clinic",)).tenants == ("clinic",)
    assert packages.add(archive, LIMITS).tenants == ("clinic",)
    assert packages.get("small").tenants == ("clinic",)
    assert packages.add(archive, LIMITS, tenants=()).tenants == ()


def test_versions_stand_side_by_side(packages: ModelPackages, folder: Path) -> None:
    first = packages.add(zipped(folder, folder.with_suffix(".zip")), LIMITS, tenants=("clinic",))
    write_manifest(folder, {**manifest(folder), "version": "1.1.0"})
    second = packages.add(zipped(folder, folder.with_suffix(".zip")), LIMITS)
    assert packages.list() == (first, second)
    assert packages.get("small") == second
    packages.remove("small", "1.1.0")
    assert packages.get("small") == first
