"""A small real model package, built anew: a tiny network, its manifest, its self-tests."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch
import yaml
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid
from safetensors.torch import save_file
from torch import Tensor, nn

from workers.architectures.base import ARCHITECTURES

SIDE = 48
"""Rows and columns of the model's input."""

HIGHEST = 4095
CLASSES = ("nodule", "effusion", "fracture")
NETWORK: Mapping[str, Any] = {
    "channels": 1,
    "classes": len(CLASSES),
    "stem": 8,
    "widths": [8, 16],
    "strides": [2, 1],
    "dilations": [1, 1],
}
CONVOLUTIONAL = "residual_cnn"
LAYER = "blocks.1"
MEAN, STD = 2048.0, 1024.0


def network(seed: int = 0, architecture: str = CONVOLUTIONAL, **changes: Any) -> nn.Module:
    """Return the network with seeded weights and lively norm statistics."""
    torch.manual_seed(seed)
    shape = _shape(architecture, changes)
    model = ARCHITECTURES[architecture].model_validate(shape).build()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.get_buffer("running_mean"), -0.2, 0.2)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
    return model.eval()


def _shape(architecture: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's arguments; only the convolutional one has some of its own."""
    return {**(NETWORK if architecture == CONVOLUTIONAL else {}), **changes}


def picture(seed: int = 1, rows: int = SIDE, columns: int = SIDE) -> NDArray[np.uint16]:
    """Return stored values of a made-up picture: a bright disk in noise, 12 bits."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns]
    disk = (y - rows / 3) ** 2 + (x - columns / 2) ** 2 < (rows / 6) ** 2
    values = random.normal(1500, 200, (rows, columns)) + 1500 * disk
    stored: NDArray[np.uint16] = np.clip(values, 0, HIGHEST).astype(np.uint16)
    return stored


def write_image(
    path: Path,
    stored: NDArray[np.uint16],
    *,
    inverted: bool = False,
    tags: Mapping[str, Any] | None = None,
) -> Path:
    """Write stored values as a real CR object, MONOCHROME2 or 1."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    image.SOPClassUID = meta.MediaStorageSOPClassUID
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.PatientName, image.PatientID = "Phantom^Small", "SMALL"
    image.PatientBirthDate, image.PatientSex = "", ""
    image.StudyDate, image.StudyTime, image.AccessionNumber = "20240102", "030405", ""
    image.ReferringPhysicianName, image.StudyID = "", ""
    image.SeriesNumber, image.InstanceNumber = 1, 1
    image.Modality, image.BodyPartExamined, image.ViewPosition = "CR", "CHEST", "PA"
    image.PatientOrientation = ["L", "F"]
    image.Rows, image.Columns = stored.shape
    image.SamplesPerPixel, image.PixelRepresentation = 1, 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    image.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    image.WindowCenter, image.WindowWidth = 2048, 4096
    image.PixelData = (HIGHEST - stored if inverted else stored).astype("<u2").tobytes()
    for name, value in (tags or {}).items():
        setattr(image, name, value)
    pydicom.dcmwrite(path, image, enforce_file_format=True)
    return path


def model_input(stored: NDArray[np.uint16]) -> Tensor:
    """Prepare a picture by hand, as the manifest's steps should: ``(1, rows, columns)``."""
    return torch.from_numpy((stored.astype(np.float32) - MEAN) / STD)[None]


def write_package(
    folder: Path,
    *,
    name: str = "small",
    side: int = SIDE,
    seed: int = 0,
    break_weights: Callable[[nn.Module], None] | None = None,
    threshold: float = 1e-6,
    architecture: str = CONVOLUTIONAL,
    shape: Mapping[str, Any] | None = None,
    image_tags: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a whole package into `folder` and return it.

    Parameters
    ----------
    side
        Rows and columns of the test inputs.
    seed, architecture, shape
        Of the network, see `network`.
    break_weights
        Spoils the network before it is saved and its expected logits are made.
    threshold
        Operating threshold of every class; at the default each class is above it.
    image_tags
        Attributes of the self-tests' images to replace.
    changes
        Fields of ``model.yaml`` to replace.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape = shape or {}
    model = network(seed, architecture, **shape)
    if break_weights is not None:
        break_weights(model)
    save_file(model.state_dict(), folder / "weights.safetensors")
    stored = picture(rows=side, columns=side)
    write_image(folder / "plain.dcm", stored, tags=image_tags)
    write_image(folder / "inverted.dcm", stored, inverted=True, tags=image_tags)
    with torch.no_grad():
        seen = model_input(stored).expand(shape.get("channels", 1), -1, -1)
        logits = model(seen[None])[0].nan_to_num().tolist()
    manifest = {
        **_manifest(folder, name, logits, threshold),
        "architecture": {"name": architecture, "parameters": _shape(architecture, shape)},
        **(changes or {}),
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder


def _manifest(folder: Path, name: str, logits: list[float], threshold: float) -> dict[str, Any]:
    files = {
        "weights.safetensors": ("weights", "safetensors"),
        "plain.dcm": ("selftest", "dicom"),
        "inverted.dcm": ("selftest", "dicom"),
    }
    return {
        "schema_number": 1,
        "id": name,
        "version": "1.0.0",
        "title": "Small network for tests",
        "publisher": "Whylight",
        "license": "Apache-2.0",
        "intended_use": "Tests of the service.",
        "not_for": "Anything else.",
        "task": "classification-multilabel",
        "runtime": "torch",
        "files": [entry_of(folder, path, *what) for path, what in files.items()],
        "inputs": [
            {
                "accept": {"modalities": ["CR", "DX"]},
                "steps": [
                    {"name": "invert_monochrome1"},
                    {"name": "normalize", "parameters": {"mean": [MEAN], "std": [STD]}},
                ],
            }
        ],
        "outputs": [
            {
                "classes": [
                    {"key": key, "label": key.title(), "threshold": threshold} for key in CLASSES
                ]
            }
        ],
        "explain": {
            "layers": [{"name": LAYER}],
            "baseline": 0.0,
        },
        "selftests": [
            {"title": title, "input": f"{title}.dcm", "logits": list(logits), "tolerance": 1e-4}
            for title in ("plain", "inverted")
        ],
    }


def entry_of(folder: Path, path: str, role: str, format_: str) -> dict[str, Any]:
    """Return a file's entry in the manifest."""
    data = (folder / path).read_bytes()
    return {
        "role": role,
        "format": format_,
        "path": path,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
