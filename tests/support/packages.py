"""A small model package, valid to the byte, for tests to break."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import yaml

NETWORK = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1}
STEPS = [{"name": "resize", "parameters": {"size": [32, 32]}}]


def write_package(folder: Path, **changes: Any) -> Path:
    """Write a valid package into `folder`; `changes` replace fields of its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(safetensors_bytes())
    (folder / "selftest").mkdir(exist_ok=True)
    (folder / "selftest" / "a.dcm").write_bytes(bytes(128) + b"DICM" + b"rest")
    write_manifest(folder, {**manifest(folder), **changes})
    return folder


def write_manifest(folder: Path, fields: dict[str, Any]) -> None:
    """Write ``model.yaml``."""
    (folder / "model.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))


def manifest(folder: Path) -> dict[str, Any]:
    """Return the fields of a manifest that fits the files in `folder`."""
    return {
        "id": "small",
        "version": "1.0.0",
        "title": "A small model",
        "publisher": "Tests",
        "license": "MIT",
        "intended_use": "Tests.",
        "not_for": "Anything else.",
        "task": "classification-multilabel",
        "runtime": "torch",
        "architecture": {"name": "densenet", "parameters": NETWORK},
        "files": [
            entry(folder, "weights", "safetensors", "weights.safetensors"),
            entry(folder, "selftest", "dicom", "selftest/a.dcm"),
        ],
        "inputs": [{"accept": {"modalities": ["CR"]}, "steps": STEPS}],
        "outputs": [{"classes": [{"key": "nodule", "label": "Nodule", "threshold": 0.5}]}],
        "selftests": [
            {"title": "one", "input": "selftest/a.dcm", "logits": [1.5], "tolerance": 0.01}
        ],
    }


def entry(folder: Path, role: str, format_: str, path: str) -> dict[str, Any]:
    """Return a manifest's entry of a file."""
    data = (folder / path).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return {"role": role, "format": format_, "path": path, "sha256": digest, "bytes": len(data)}


def safetensors_bytes() -> bytes:
    """Return a safetensors file of one tensor of two float32 values."""
    header = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


def zipped(folder: Path, to: Path, top: str = "") -> Path:
    """Zip a folder as a person would, below the folder `top` if one is given."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, f"{top}{path.relative_to(folder).as_posix()}")
    return to
