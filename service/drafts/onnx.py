"""A draft from an ONNX file: names and shapes of its tensors, and its metadata."""

from pathlib import Path
from typing import Any, Final

import onnx

from service.drafts.base import Draft, ask_license, image, slug, text, version
from service.drafts.tokens import take_tokens
from service.manifests import defect, invalid
from service.sniff import contradiction

IMAGE_AXES: Final = (4, 5)
"""Of an image and of a volume: rows of the batch, channels, and those of space."""

CHANNELS: Final = (1, 3)
"""Of a gray image and one of colors."""


def read_graph(path: Path) -> Any:
    """Return a graph; data beside it is not read.

    Raises
    ------
    InvalidPackage
        The file is no ONNX.
    """
    if why := contradiction(path, "onnx"):
        raise invalid([defect("", why)])
    return onnx.load(path, load_external_data=False)


def read_onnx(path: Path) -> Draft:
    """Return a draft from an ONNX file; data beside it is not read.

    Raises
    ------
    InvalidPackage
        The file is no ONNX.
    """
    model = read_graph(path)
    said = {each.key: each.value for each in model.metadata_props}
    title = text(said, "title", "name") or model.graph.name or path.stem
    draft = Draft({"id": slug(path.stem), **version(said.get("version")), "title": title})
    if publisher := text(said, "publisher", "author", "authors"):
        draft.fields["publisher"] = publisher
    draft.notes["/license"] = ask_license("the file", text(said, "license"))
    take_graph(path, model, draft)
    fixed = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in fixed]
    _inputs(inputs, draft)
    take_tokens(model.graph, _size(draft), draft)
    for each in model.graph.output[:1]:
        shape = _shape(each)
        draft.fields["outputs"] = [{"name": each.name, "classes": []}]
        draft.notes["/outputs/0/classes"] = (
            f"Name the classes in their order, with thresholds; the output's shape is {shape!r}."
        )
        last = next((node for node in model.graph.node if each.name in node.output), None)
        if last is not None and last.op_type in {"Sigmoid", "Softmax"}:
            draft.fields["activation"] = "probabilities"
        else:
            draft.notes["/activation"] = "Say 'probabilities' if the output holds no logits."
    return draft


def _inputs(tensors: list[Any], draft: Draft) -> None:
    """Take over the image, wherever it stands, and after it the tensors of numbers."""
    pictured = [each for each in tensors if len(_shape(each)) in IMAGE_AXES]
    unsaid = [each for each in tensors if not _shape(each)]
    images = (pictured or unsaid)[:1]
    tables = [each for each in tensors if _is_table(each)] if images else []
    for each in images:
        _image(each, draft)
    for place, each in enumerate(tables, 1):
        draft.fields["inputs"].append({"name": each.name, "kind": "tabular", "variables": []})
        draft.notes[f"/inputs/{place}/variables"] = (
            f"Say the variables of {each.name!r} in their order; its shape is {_shape(each)!r}."
        )
    taken = {each.name for each in (*images, *tables)}
    left = ", ".join(f"{each.name} {_shape(each)!r}" for each in tensors if each.name not in taken)
    if left:
        draft.notes["/inputs"] = (
            f"The graph has inputs that nothing here fills: {left}. It can have one image, of 4"
            " axes (a volume: 5), and beside it 32-bit floats of shape (N, variables)."
        )


def _size(draft: Draft) -> list[int]:
    """Return the size to which the image is brought; empty if nothing tells it."""
    steps = [step for each in draft.fields.get("inputs", [])[:1] for step in each["steps"]]
    return [edge for step in steps for edge in step["parameters"]["size"]]


def _is_table(tensor: Any) -> bool:
    """Tell whether an input is of numbers beside the image: floats, a row for each image."""
    floats = tensor.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    return floats and len(_shape(tensor)) == len(("N", "variables"))


def _image(tensor: Any, draft: Draft) -> None:
    """Take over the image: its name, axes and size."""
    shape = _shape(tensor)
    last = _channels_last(shape)
    edges = shape[1:-1] if last else shape[2:]
    size = [edge for edge in edges if isinstance(edge, int)]
    whole = len(size) == len("yx") == len(edges)
    steps = [{"name": "resize", "parameters": {"size": size}}] if whole else []
    drafted = image(len(edges), tensor.name, [], steps)
    if last and len(edges) == len("yx"):
        drafted["layout"] = "NHWC"
        draft.looks["/inputs/0/layout"] = (
            f"The shape is {shape!r}, so channels were taken to come last; look whether they do."
        )
    elif last:
        draft.notes["/inputs/0/layout"] = (
            f"The shape is {shape!r}: channels seem to come last. Of volumes they must come first:"
            " export the graph so, or with a Transpose in front."
        )
    draft.fields["inputs"] = [drafted]
    draft.notes["/inputs/0/steps"] = (
        f"Say the steps from modality values to the input, whose shape is {shape!r}."
    )


def _channels_last(shape: list[int | str]) -> bool:
    """Tell whether channels, one or three, come behind longer axes."""
    if len(shape) not in IMAGE_AXES:
        return False
    *axes, last = shape[1:]
    return last in CHANNELS and all(isinstance(each, str) or each > last for each in axes)


def take_graph(path: Path, model: Any, draft: Draft) -> None:
    """Take a graph and the files of its external data that lie beside it; tell of all others."""
    draft.fields["runtime"] = "onnx"
    draft.files.append((path, "forward", "onnx"))
    places = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for place in sorted(places):
        file = path.parent / place
        if Path(place).name == place and file.is_file() and not file.is_symlink():
            draft.files.append((file, "forward", "onnx_data"))
        else:
            draft.notes["/files"] = (
                f"The graph keeps weights in {place!r}, which is not beside it: put it there and"
                " import again, or list it with role 'forward' and format 'onnx_data'."
            )


def _shape(tensor: Any) -> list[int | str]:
    """Return a tensor's edges; those that vary by their names."""
    return [
        each.dim_value if each.HasField("dim_value") else each.dim_param or "?"
        for each in tensor.type.tensor_type.shape.dim
    ]
