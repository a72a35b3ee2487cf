"""The shipped detectors, as they are and as ONNX files with boxes and probabilities as outputs."""

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from examples.boxes import STEP, THRESHOLD, Detecting, sourced
from examples.planted import recipes as planted
from examples.spheres import detector as spheres
from examples.spheres.phantom import draw
from examples.spheres.scans import SCANS
from examples.spheres.train import stepped
from service.domain.explanation import Explanation
from service.domain.manifest import Manifest
from service.manifests import read_manifest
from tests.support.exported import onnx_of
from tests.support.windowed_boxes import proposals_in_windows
from workers.architectures.base import Architecture

MODELS: Final = Path(__file__).parents[2] / "models"
BOXES: Final = {
    "layout": "rows",
    "tensors": ["boxes", "scores"],
    "channels": ["box", "classes"],
    "form": "corners",
    "scores": "probabilities",
    "overlap": 0.3,
}


@dataclass(frozen=True)
class Shipped:
    """A bundled detector."""

    package: Path
    architecture: Architecture
    detecting: Detecting

    @property
    def manifest(self) -> Manifest:
        return read_manifest((self.package / "model.yaml").read_bytes())

    def network(self) -> nn.Module:
        """Return the network as it was trained, in evaluation mode."""
        network = self.architecture.build()
        network.load_state_dict(load_file(self.package / "weights.safetensors"))
        return network.eval()


OF_SHAPES: Final = Shipped(
    MODELS / "detector-phantom", planted.SHAPE_DETECTION.network, planted.DETECTING
)
OF_SPHERES: Final = Shipped(MODELS / "sphere-detector-phantom", spheres.NETWORK, spheres.DETECTING)


class Exported(nn.Module):
    """Decodes as exports do: corners in pixels, x before y before z, and probabilities."""

    def __init__(self, shipped: Shipped = OF_SHAPES) -> None:
        super().__init__()
        self.network = shipped.network()
        self.widths = [len(shipped.detecting.classes), *[len(shipped.detecting.small)] * 2]
        lines = [(torch.arange(edge // STEP) + 0.5) * STEP for edge in shipped.detecting.small]
        self.register_buffer("places", torch.cartesian_prod(*lines).flip(1)[None])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.network(image).flatten(2).transpose(1, 2)
        logits, low, high = raw.split(self.widths, -1)
        boxes = torch.cat([self.places - STEP * low, self.places + STEP * high], -1)
        return boxes, logits.sigmoid()


def write_exported_detector(folder: Path, shipped: Shipped = OF_SHAPES, **changes: Any) -> Path:
    """Write a shipped detector's package with an ONNX file in place of weights.

    Parameters
    ----------
    changes
        Fields of ``outputs[0].boxes`` to replace.
    """
    shutil.copytree(shipped.package, folder)
    (folder / "weights.safetensors").unlink()
    image = torch.zeros(1, *shipped.detecting.small)
    content = onnx_of(Exported(shipped).eval(), image, outputs=("boxes", "scores"))
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
    axes = shipped.detecting.decoding.axes
    manifest["outputs"][0]["boxes"] = BOXES | {"axes": axes} | changes
    explain = {"baseline": shipped.manifest.explain.baseline}
    manifest |= {"id": "exported-detector", "runtime": "onnx", "explain": explain}
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder


EDGE: Final = 24
"""Of the windows of a detector that is given its volumes in windows, a whole one being 32."""


def write_windowed_detector(folder: Path) -> Shipped:
    """Write the package of the detector of spheres, given its volumes in windows.

    What its self-tests expect is what MONAI's windows and suppression give.
    """
    shipped = OF_SPHERES
    shutil.copytree(shipped.package, folder)
    manifest = yaml.safe_load((folder / "model.yaml").read_text())
    windows = {"size": [EDGE] * 3, "overlap": 0.5, "blend": "none"}
    manifest |= {"id": "windowed-detector", "sliding_window": windows}
    detecting = shipped.detecting
    for test, (_, findings, seed), scan in zip(
        manifest["selftests"], spheres.KNOWN, SCANS, strict=True
    ):
        given = stepped(scan(draw(seed, findings)), spheres.STEPS)
        image = torch.from_numpy(np.ascontiguousarray(given.values))
        found = proposals_in_windows(shipped.network(), image, windows["size"], 0.5)
        test["logits"] = found.logits.amax(0).tolist()
        test["boxes"] = [
            {"of": key, "box": sourced(found.boxes[each], given.grid).tolist()}
            for k, key in enumerate(detecting.classes)
            for each in found.kept(k, THRESHOLD, detecting.decoding.overlap).tolist()
        ]
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return Shipped(folder, shipped.architecture, replace(detecting, small=(EDGE,) * 3))


class Sorting(Exported):
    """The same, with what is below the threshold left out by the network itself."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = super().forward(image)
        found = scores[0].amax(-1) > 0.02
        return boxes[:, found], scores[:, found]


def demand_the_same(told: Explanation, again: Explanation) -> None:
    """Require of an exported detector's answer what the network's own says and shows."""
    for one, other in zip(told.predictions, again.predictions, strict=True):
        assert other.logit == pytest.approx(one.logit, abs=1e-3)
        assert [e.patient for e in other.detections] == [e.patient for e in one.detections]
    known = {(e.method, e.target.key): e for e in told.results}
    for entry in again.results:
        before = known[entry.method, entry.target.key]
        assert entry.status == "succeeded", entry.reason
        assert entry.executed_on == ("original" if entry.method == "occlusion" else "surrogate")
        assert entry.target.windows == before.target.windows
        assert entry.target.score == pytest.approx(before.target.score, abs=1e-3)
        assert entry.map.peak == before.map.peak
