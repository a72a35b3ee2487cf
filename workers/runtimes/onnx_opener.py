"""Opens packages of ONNX: a graph, its external data, and what the package says of it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from typing_extensions import override

from service.domain.manifest import Manifest
from workers.endings import ending_of
from workers.runtimes.base import RUNTIMES, Opener
from workers.runtimes.graph.ending import bare, demand_ending
from workers.runtimes.graph.join import joined
from workers.runtimes.graph.read import demand_finite, read_model
from workers.runtimes.onnx import OnnxRuntime
from workers.tabular import Companions
from workers.tokens import Tokens


@RUNTIMES.register("onnx")
class OnnxOpener(Opener):
    """ONNX graphs, with their external data if the package has it."""

    @override
    def open(
        self,
        manifest: Manifest,
        folder: Path,
        shape: tuple[int, ...],
        device: torch.device,
        fixed_rows: int | None = None,
    ) -> Callable[[], OnnxRuntime]:
        """Hand the package's graph, as bytes, to onnxruntime; it runs on the CPU."""
        path = folder / manifest.file("forward", "onnx").path
        layers = {each.name: each.onnx or each.name for each in manifest.layers}
        data = [folder / file.path for file in manifest.files if file.format == "onnx_data"]
        files = [
            str(file.relative_to(path.parent)) for file in data if file.is_relative_to(path.parent)
        ]
        model = read_model(path.read_bytes(), path.parent, files)
        demand_finite(model)
        demand_ending(model, manifest)
        ending = ending_of(manifest)
        if manifest.activation == "probabilities" and bare(model, manifest):
            ending = None
        boxes = manifest.outputs[0].boxes
        if boxes is not None and boxes.tensors:
            model = joined(model, boxes.tensors, axis=2 if boxes.layout == "rows" else 1)
        return partial(
            OnnxRuntime,
            model,
            shape,
            layers or None,
            fixed_rows=fixed_rows,
            channels_last=manifest.image.layout == "NHWC",
            tokens=Tokens.said_by(manifest, shape[1:]),
            limit=manifest.surrogate,
            companions=Companions.of(manifest),
            beside=[each.name for each in manifest.tabular],
            ending=ending,
        )
