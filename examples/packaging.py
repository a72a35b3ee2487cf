"""The package of a demo model: its files, and the manifest that lists them."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydicom import Dataset
from pydicom.uid import JPEGLSLossless
from safetensors.torch import save
from torch import nn

from service.domain.files import File, SelfTest
from service.domain.manifest import Manifest
from service.domain.network import Architecture as ArchitectureChoice
from workers.architectures.base import Architecture

WEIGHTS = "weights.safetensors"
TOLERANCE = 0.05
"""Allowed difference of a self-test's logits: room for another resampling arithmetic."""


def write_package(
    folder: Path,
    network: nn.Module,
    built_by: Architecture,
    tests: tuple[SelfTest, ...],
    card: str,
    **described: Any,
) -> None:
    """Write the package of a trained network for torch to `folder`.

    Parameters
    ----------
    tests
        Self-tests, whose inputs lie in `folder`.
    card
        The text of ``CARD.md``.
    described
        The rest of the manifest; cases of a `calibration` lie in `folder`, too.
    """
    cases = described.get("calibration")
    (folder / WEIGHTS).write_bytes(save(network.state_dict()))
    (folder / "CARD.md").write_text(card)
    manifest = {
        "version": "1.0.0",
        "publisher": "Whylight",
        "license": "Apache-2.0",
        "runtime": "torch",
        "architecture": architecture(built_by),
        "files": (
            file_of(folder, "weights", "safetensors", WEIGHTS),
            *(file_of(folder, "selftest", "dicom", path) for test in tests for path in test.paths),
            *([file_of(folder, "calibration", "safetensors", cases.cases)] if cases else []),
        ),
        "selftests": tests,
    }
    write_manifest(folder, Manifest.model_validate(manifest | described))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``model.yaml``; targets that are those of its task are left to it."""
    content: dict[str, Any] = manifest.model_dump(mode="json", exclude_none=True)
    if "default_targets" not in manifest.explain.model_fields_set:
        del content["explain"]["default_targets"]
    (folder / "model.yaml").write_text(yaml.safe_dump(content, sort_keys=False, width=100))


def write_object(path: Path, data: Dataset, *, compress: bool = False) -> None:
    """Write a Part 10 file; `compress` stores the pixels as lossless JPEG-LS."""
    if compress:
        uid = data.SOPInstanceUID
        data.compress(JPEGLSLossless)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def write_selftest(
    folder: Path,
    name: str,
    title: str,
    data: Dataset | Mapping[str, Dataset],
    logits: Iterable[float],
) -> SelfTest:
    """Write a self-test's input; return the test, which is that the model says these logits.

    Parameters
    ----------
    data
        The input; of several views one for each, by its key.
    """
    views = {} if isinstance(data, Dataset) else data
    paths = {view: _written(folder, f"{name}_{view}", each) for view, each in views.items()}
    return SelfTest(
        title=title,
        input=_written(folder, name, data) if isinstance(data, Dataset) else paths,
        logits=tuple(rounded(logits)),
        tolerance=TOLERANCE,
    )


def _written(folder: Path, name: str, data: Dataset) -> str:
    """Write a self-test's object; return its path in the package."""
    path = f"selftest/{name}.dcm"
    write_object(folder / path, data, compress=True)
    return path


def rounded(values: Iterable[float], digits: int = 5) -> list[float]:
    """Return values as a manifest tells them."""
    return [round(float(each), digits) for each in values]


def architecture(built_by: Architecture) -> ArchitectureChoice:
    """Return what builds a network, by its name and parameters."""
    return ArchitectureChoice(name=built_by.name, parameters=built_by.model_dump(mode="json"))


def file_of(folder: Path, role: str, format_: str, path: str) -> File:
    """Return the manifest's entry of a file that lies in `folder`."""
    content = (folder / path).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return File.model_validate(
        {"role": role, "format": format_, "path": path, "sha256": digest, "bytes": len(content)}
    )
