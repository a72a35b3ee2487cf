"""Small networks as ONNX files."""

import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
import yaml
from onnx import TensorProto, helper
from torch import Tensor, nn

from tests.support.engine import image_for, small_net
from tests.support.small_model import SIDE, network, write_package


def exported(axes: int = 2, channels: int = 1, *, fixed: bool = False) -> bytes:
    """Return the small network of `float32` as ONNX; with `fixed`, for one row at a time."""
    image = image_for(axes, channels, dtype=torch.float32)
    return onnx_of(small_net(axes, channels, dtype=torch.float32), image, fixed=fixed)


def onnx_of(
    model: nn.Module, image: Tensor, *, fixed: bool = False, outputs: Sequence[str] = ("logits",)
) -> bytes:
    """Return a network that takes images like `image` as ONNX."""
    file = io.BytesIO()
    free = None if fixed else {name: {0: "rows"} for name in ("image", *outputs)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (image[None],),
            file,
            dynamo=False,
            input_names=["image"],
            output_names=list(outputs),
            dynamic_axes=free,
        )
    return file.getvalue()


def uninterpreted(content: bytes) -> bytes:
    """Return the same model with an operator at its end that changes nothing and is not ours."""
    model = onnx.load_from_string(content)
    output = model.graph.output[0]
    model.graph.node.append(
        helper.make_node("Shrink", [output.name], ["shrunk"], lambd=0.0, bias=0.0)
    )
    output.name = "shrunk"
    written: bytes = model.SerializeToString()
    return written


def crashing(content: bytes) -> bytes:
    """Return a model whose constants end the process of onnxruntime 1.x that folds them.

    The least integer over -1 has no integer for an answer: the processor raises SIGFPE.
    """
    model = onnx.load_from_string(content)
    output = model.graph.output[0]
    for name, value in (("least", -(2**63)), ("minus", -1)):
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [], [value]))
    model.graph.node.extend(
        [
            helper.make_node("Div", ["least", "minus"], ["none"]),
            helper.make_node("Cast", ["none"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Add", [output.name, "number"], ["crashed"]),
        ]
    )
    output.name = "crashed"
    written: bytes = model.SerializeToString()
    return written


def write_onnx_package(
    folder: Path, files: Mapping[str, bytes] | None = None, **changes: Any
) -> Path:
    """Write the package of `small_model`, its network as ONNX, into `folder` and return it.

    Parameters
    ----------
    files
        Model and external data by path, the model first; the exported network if not given.
    changes
        Fields of ``model.yaml`` to replace.
    """
    files = files or {"model.onnx": onnx_of(network(), torch.zeros(1, SIDE, SIDE))}
    write_package(folder, name="exported")
    (folder / "weights.safetensors").unlink()
    manifest = yaml.safe_load((folder / "model.yaml").read_text())
    manifest["files"] = manifest["files"][1:]
    for number, (path, content) in enumerate(files.items()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        manifest["files"].append(
            {
                "role": "forward",
                "format": "onnx_data" if number else "onnx",
                "path": path,
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
            }
        )
    del manifest["architecture"]
    manifest |= {"runtime": "onnx", "explain": {"baseline": 0.0}, **changes}
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder


def write_remote_package(folder: Path, **remote: Any) -> Path:
    """Write the package of `small_model` as of a model on a server, and return its folder.

    Parameters
    ----------
    remote
        Fields of ``remote`` to replace.
    """
    write_onnx_package(folder)
    (folder / "model.onnx").unlink()
    manifest = yaml.safe_load((folder / "model.yaml").read_text())
    manifest["files"].pop()
    words = {"endpoint": "lab", "model": "chest", "input": "image", "output": "logits"}
    manifest |= {"id": "elsewhere", "runtime": "remote", "remote": words | remote}
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder
