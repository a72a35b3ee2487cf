"""``whylight models seal``: sizes and digests of a package's files into its model.yaml."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import yaml

from service.command import parts
from service.command.failure import CommandFailure
from service.contents import MISSING, inspect
from service.drafts.base import listed
from service.manifests import defect, invalid, parsed
from service.paths import MANIFEST_NAME


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's words."""
    parser.add_argument("folder", type=Path, help="the package; its files are named in model.yaml")


def run(options: Namespace) -> int:
    """Fill in what can be counted, and check the package as the gateway will.

    Comments of model.yaml are lost. Raises `InvalidPackage` with every defect.
    """
    path: Path = options.folder / MANIFEST_NAME
    try:
        fields: Any = parsed(path.read_bytes())
        there = [(options.folder / str(each["path"])).is_file() for each in fields["files"]]
    except (OSError, TypeError, KeyError):
        raise CommandFailure(
            "There is no model.yaml that lists files.",
            "Name role, format and path of each under 'files'; see docs/models/index.md.",
        ) from None
    if not all(there):
        places = (f"/files/{i}/path" for i, found in enumerate(there) if not found)
        raise invalid([defect(place, MISSING) for place in places])
    fields["files"] = [_sealed(options.folder, each) for each in fields["files"]]
    path.write_text(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True))
    manifest, contents = inspect(options.folder)
    wrong, networks = parts.defects(manifest)
    if wrong:
        raise invalid([defect(each["pointer"], each["message"]) for each in wrong])
    if manifest.architecture is not None and not networks:
        print("The network and its parameters are checked by the worker: torch is not here.")
    if len(manifest.selftests) == 1:
        print(
            "It has one self-test. Add one that is unusual for the model, such as MONOCHROME1 or"
            " another spacing: a lost step may not show on an ordinary image."
        )
    print(f"{manifest.ref} is sound: {len(contents.files)} files, package {contents.digest}")
    return 0


def _sealed(folder: Path, file: dict[str, Any]) -> dict[str, Any]:
    """Return a file's entry with its size and digest."""
    counted = listed(folder / str(file["path"]), "", "")
    return {**file, "sha256": counted["sha256"], "bytes": counted["bytes"]}
