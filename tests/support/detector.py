"""The shipped detector as an ONNX file, with boxes and probabilities as outputs of their own."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from examples.planted.recipes import SHAPE_DETECTION
from examples.radiographs import SMALL
from tests.support.exported import onnx_of

PACKAGE = Path(__file__).parents[2] / "models" / "detector-phantom"
BOXES = {
    "layout": "rows",
    "tensors": ["boxes", "scores"],
    "channels": ["box", "classes"],
    "form": "corners",
    "axes": "xy",
    "scores": "probabilities",
    "overlap": 0.3,
}
STEP = 2


class Exported(nn.Module):
    """Decodes as exports do: corners in pixels, x before y, and probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.network = SHAPE_DETECTION.network.build()
        self.network.load_state_dict(load_file(PACKAGE / "weights.safetensors"))
        place = (torch.arange(SMALL // STEP) + 0.5) * STEP
        rows, columns = torch.meshgrid(place, place, indexing="ij")
        self.register_buffer("places", torch.stack([columns, rows], -1).reshape(1, -1, 2))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.network(image).flatten(2).transpose(1, 2)
        low = self.places - STEP * raw[..., 2:4]
        high = self.places + STEP * raw[..., 4:6]
        return torch.cat([low, high], -1), raw[..., :2].sigmoid()


def write_exported_detector(folder: Path, **changes: Any) -> Path:
    """Write the shipped detector's package with an ONNX file in place of weights.

    Parameters
    ----------
    changes
        Fields of ``outputs[0].boxes`` to replace.
    """
    shutil.copytree(PACKAGE, folder)
    (folder / "weights.safetensors").unlink()
    content = onnx_of(Exported().eval(), torch.zeros(1, SMALL, SMALL), outputs=("boxes", "scores"))
    (folder / "model.onnx").write_bytes(content)
    manifest = yaml.safe_load((folder / "model.yaml").read_text())
    del manifest["architecture"]
    manifest["files"][0] = {
        "role": "forward",
        "format": "onnx",
        "path": "model.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    manifest["outputs"][0]["boxes"] = BOXES | changes
    manifest |= {"id": "exported-detector", "runtime": "onnx", "explain": {"baseline": -2.0}}
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder


class Sorting(Exported):
    """The same, with what is below the threshold left out by the network itself."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = super().forward(image)
        found = scores[0].amax(-1) > 0.02
        return boxes[:, found], scores[:, found]
