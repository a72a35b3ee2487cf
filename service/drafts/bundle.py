"""A draft from a MONAI bundle: its ``metadata.json``, and names and numbers of its network.

A bundle's configuration is a program: expressions in it begin with ``$`` and
references with ``@``. Nothing of it is evaluated; a network is taken over only if
every argument is plain data.
"""

from pathlib import Path
from typing import Any, Final

from service.drafts.base import (
    Draft,
    ask_license,
    classes,
    image,
    modalities,
    read_json,
    slug,
    text,
    version,
)
from service.drafts.monai import choice, is_data, per_axis
from service.errors.models import InvalidPackage
from service.sniff import contradiction

CONFIGS: Final = ("inference.json", "train.json")
WINDOWS: Final = "SlidingWindowInferer"
OVERLAP: Final = 0.25
"""Of MONAI's windows, where a configuration does not say."""

PLACES: Final = ("network_def", "network", "net")


def read_bundle(folder: Path) -> Draft:
    """Return a draft from a bundle's folder.

    Raises
    ------
    InvalidPackage
        The folder has no ``configs/metadata.json`` that can be read.
    """
    about = read_json(folder / "configs" / "metadata.json")
    name = text(about, "name") or folder.resolve().name
    draft = Draft({"id": slug(name), **version(about.get("version")), "title": name})
    if publisher := text(about, "authors"):
        draft.fields["publisher"] = publisher
    if use := text(about, "intended_use"):
        draft.fields["intended_use"] = use
    said = text(about, "task", "description") or "nothing"
    draft.notes["/task"] = f"metadata.json says of the task: {said!r}."
    draft.notes["/license"] = ask_license("metadata.json", text(about, "license"))
    _tensors(about, draft)
    _windows(folder, about, draft)
    _weights(folder, draft)
    return draft


def _tensors(about: dict[str, Any], draft: Draft) -> None:
    """Take over what is said of the tensors of network and data."""
    format_ = _mapping(about.get("network_data_format"))
    for name, entry in list(_mapping(format_.get("inputs")).items())[:1]:
        said = _mapping(entry)
        shape = said.get("spatial_shape")
        axes = _axes(said)
        seen = modalities([said.get("modality"), about.get("modality")])
        steps = _resize(shape) if axes == len("yx") else []
        draft.fields["inputs"] = [image(axes, slug(name).replace("-", "_"), seen, steps)]
        draft.notes["/inputs/0/steps"] = (
            "Say the steps from modality values to the network's input; metadata.json says: "
            f"shape {shape!r}, values {said.get('value_range')!r}, channels "
            f"{said.get('num_channels')!r}. The bundle's own transforms are not evaluated."
        )
    for name, entry in list(_mapping(format_.get("outputs")).items())[:1]:
        channels = _mapping(_mapping(entry).get("channel_def"))
        ordered = sorted(channels, key=lambda each: int(each) if each.isdecimal() else 0)
        found = classes(str(channels[each]) for each in ordered)
        draft.fields["outputs"] = [{"name": slug(name).replace("-", "_"), "classes": found}]
        (draft.looks if found else draft.notes)["/outputs/0/classes"] = (
            "Check the order of the classes and that the network puts out logits, not "
            "probabilities; give codes and thresholds."
        )


def _axes(said: dict[str, Any]) -> int:
    """Return the spatial axes of what is said of an image."""
    shape = said.get("spatial_shape")
    return len(shape) if isinstance(shape, list) else 2


def _resize(shape: object) -> list[dict[str, Any]]:
    """Return a step to a size that is given in numbers."""
    if isinstance(shape, list) and all(isinstance(each, int) for each in shape):
        return [{"name": "resize", "parameters": {"size": shape}}]
    return []


def _weights(folder: Path, draft: Draft) -> None:
    """Take over the file of the network, or say how it becomes one that can be taken."""
    graph = folder / "models" / "model.onnx"
    if graph.is_file() and contradiction(graph, "onnx") is None:
        from service.drafts.onnx import read_graph, take_graph  # noqa: PLC0415 - of workers alone

        take_graph(graph, read_graph(graph), draft)
        return
    draft.fields["runtime"] = "torch"
    _network(folder, draft)
    models = sorted((folder / "models").glob("*.*"))
    sound = [each for each in models if contradiction(each, "safetensors") is None]
    if sound:
        draft.files.append((sound[0], "weights", "safetensors"))
    else:
        draft.notes["/files"] = (
            "Convert the weights: whylight models convert models/model.pt weights.safetensors, "
            "and list the file as the command says."
        )


def _windows(folder: Path, about: dict[str, Any], draft: Draft) -> None:
    """Take over the windows in which the network sees an image, or ask for them."""
    inputs = [*_mapping(_mapping(about.get("network_data_format")).get("inputs")).values()]
    said = _mapping(_inferer(folder))
    size = per_axis(said.get("roi_size"), _axes(_mapping(inputs[0])) if inputs else None)
    if isinstance(size, list) and size and all(isinstance(each, int) for each in size):
        overlap, blend = said.get("overlap", OVERLAP), said.get("mode", "constant")
        if is_data([overlap, blend]):
            draft.fields["sliding_window"] = {"size": size, "overlap": overlap, "blend": blend}
            draft.looks["/sliding_window"] = (
                f"Taken from {WINDOWS} of the configuration; look whether it is what runs."
            )
            return
    if said or any(_mapping(each).get("is_patch_data") is True for each in inputs):
        draft.notes["/sliding_window"] = (
            "The network sees patches of an image: say their size, overlap and blend as its"
            f" {WINDOWS} has them; the configuration names them in no plain data."
        )


def _inferer(folder: Path) -> object:
    """Return what a configuration says of windows, if it does."""
    for config in CONFIGS:
        try:
            said = _mapping(read_json(folder / "configs" / config).get("inferer"))
        except InvalidPackage:
            continue
        if str(said.get("_target_", "")).rpartition(".")[2] == WINDOWS:
            return said
    return None


def _network(folder: Path, draft: Draft) -> None:
    """Take over the network, if it is one of the list and all its arguments are data."""
    told = []
    for config in CONFIGS:
        try:
            given = read_json(folder / "configs" / config)
        except InvalidPackage:
            continue
        for place in PLACES:
            found = choice(_mapping(given.get(place)))
            if isinstance(found, dict):
                draft.fields["architecture"] = found
                return
            if found:
                told.append(f"{config} {found}")
    none = "the bundle's configuration names none in plain data."
    draft.notes["/architecture"] = (
        "Name the network and its arguments (docs/models/architectures.md); "
        f"{told[0] if told else none}"
    )


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
