"""``whylight models import``: a package begun from what others publish beside a model."""

import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

import yaml

from service.command.failure import CommandFailure
from service.drafts.base import Draft, listed
from service.drafts.bundle import read_bundle
from service.drafts.nnunet import read_nnunet
from service.errors.models import InvalidPackage
from service.manifests import read_manifest
from service.paths import MANIFEST_NAME

UNFINISHED: Final = 3
"""Exit status when a person must still say something."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's words."""
    parser.add_argument(
        "source", type=Path, help="a MONAI bundle, an nnU-Net folder with plans.json, or .onnx"
    )
    parser.add_argument("folder", type=Path, help="where the package is begun; new or empty")


def run(options: Namespace) -> int:
    """Begin a package; list what a person must still say."""
    try:
        draft = _read(options.source)
    except ModuleNotFoundError:
        raise CommandFailure(
            "Reading ONNX needs the package onnx, which is not installed here.",
            "Run the command where a worker is installed: pip install 'whylight[worker]'.",
        ) from None
    except (AttributeError, LookupError, TypeError, ValueError):
        raise CommandFailure(
            "The documents are not as MONAI, nnU-Net or ONNX write them.",
            "Write model.yaml by hand; docs/models/index.md shows how.",
        ) from None
    folder: Path = options.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CommandFailure("The folder is there and not empty.", "Name a new one.")
    folder.mkdir(parents=True, exist_ok=True)
    files = [_taken(folder, *each) for each in draft.files]
    if files:
        draft.fields["files"] = files
    data = yaml.safe_dump(draft.fields, sort_keys=False, allow_unicode=True).encode()
    (folder / MANIFEST_NAME).write_bytes(data)
    print(f"{folder / MANIFEST_NAME} is begun, from what {options.source.name} says.")
    return _tell(draft, data)


def _read(source: Path) -> Draft:
    """Return the draft of whatever lies there."""
    if (source / "configs" / "metadata.json").is_file():
        return read_bundle(source)
    if (source / "plans.json").is_file():
        return read_nnunet(source)
    if source.is_file():
        from service.drafts.onnx import read_onnx  # noqa: PLC0415 - of workers' machines alone

        return read_onnx(source)
    raise CommandFailure(
        "There is nothing here that can be imported.",
        "Name a folder with configs/metadata.json (MONAI) or plans.json (nnU-Net), or ONNX.",
    )


def _taken(folder: Path, source: Path, role: str, format_: str) -> dict[str, object]:
    """Copy a file into the package and return its entry."""
    shutil.copyfile(source, folder / source.name)
    return listed(folder / source.name, role, format_)


def _tell(draft: Draft, data: bytes) -> int:
    """List what the manifest lacks and what to look at; return the exit status."""
    lacks: dict[str, list[str]] = {}
    try:
        read_manifest(data)
    except InvalidPackage as error:
        for each in error.facts["errors"]:  # type: ignore[union-attr]
            lacks.setdefault(str(each["pointer"]), []).append(str(each["message"]))  # type: ignore[index,call-overload]
    for pointer, note in draft.notes.items():
        lacks.setdefault(pointer, []).append(note)
    looks = {k: [each] for k, each in draft.looks.items() if k not in lacks}
    for pointer in lacks.keys() & draft.looks.keys():
        lacks[pointer].append(draft.looks[pointer])
    if not lacks and not looks:
        print("Nothing is missing.")
        return 0
    for title, told in (("Still to be said", lacks), ("Taken over, and to be looked at", looks)):
        if told:
            print(f"{title}:")
        for pointer, sentences in sorted(told.items()):
            print(f"  {pointer or '/'}: {' '.join(sentences)}")
    return UNFINISHED
