"""The table of kinds of models and methods: ``python -m tests.support.model_kinds``.

Every bundled model, and a small one of each other kind, is loaded and probed as a
worker does it; what the catalog then says is the page. Models of one kind share a
column.
"""

import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from onnxruntime import quantization
from safetensors.torch import save_file
from torch import Tensor, nn
from typing_extensions import override

from service.domain.catalog import ModelEntry
from service.domain.manifest import Manifest
from service.errors.requests import MissingAbility
from service.manifests import read_manifest
from service.settings import RemoteSettings
from tests.support.detector import write_windowed_detector
from tests.support.exported import (
    onnx_of,
    uninterpreted,
    write_onnx_package,
    write_remote_package,
)
from tests.support.image_bag import write_image_bag
from tests.support.inference_server import InferenceServer, serving
from tests.support.method_pages import ours
from tests.support.phantom_dicom import encoded
from tests.support.small_model import (
    CLASSES,
    SIDE,
    entry_of,
    model_input,
    network,
    picture,
    write_package,
)
from tests.support.volumes import Series, enhanced
from workers.architectures.base import ARCHITECTURES
from workers.loading import Loader
from workers.model import Model
from workers.scheduler import Scheduler
from workers.slots import Slots

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "models" / "kinds.md"
LETTERS: Final = 26
SPACES: Final = 8 << 30
"""Address space of the process that decodes the self-tests."""

TEXT: Final = """\
# Which method for which kind of model

Nobody declares what a model can do: a worker tries it when it loads the package, and `GET
/v1/models` tells what it found, under `methods` and `refused`. This page is what it finds in the
bundled models and in a small one of each other kind. Your own may differ, say by a layer that
cannot be hooked; its catalog entry counts.

{kinds}
## Methods

`yes`: the model itself serves the method. `stand-in`: it is served by the same graph, interpreted
in torch, see [ONNX](onnx.md#gradients). A number: it is refused with `{code}` and the
[sentence of that number](#why-not). A request for such a method answers 422 before anything is
queued, with the methods that the model has.

{methods}
## Why not

{reasons}
This page is written by `python -m tests.support.model_kinds`; a test fails when it is out of date.
Figures within the sentences are of the models that are shown.
"""


@dataclass(frozen=True)
class Kind:
    """One column: what its models are, and what a worker found in the first of them."""

    title: str
    models: tuple[str, ...]
    entry: ModelEntry


def bundled() -> Iterator[tuple[str, Path]]:
    """Yield every bundled package that the demo ships."""
    for folder in sorted((ROOT / "models").iterdir()):
        yield folder.name, folder


def drawn(folder: Path, endpoint: str) -> Iterator[tuple[str, Path]]:
    """Yield a small package of each kind that is not bundled, written into `folder`."""
    unnamed = {"explain": {"baseline": 0.0}}
    for architecture, shape in LISTED.items():
        path = folder / architecture
        options = {"name": architecture, "architecture": architecture, "shape": shape}
        told = "MONAI's" if architecture == "densenet" else "a"
        yield f"{told} `{architecture}`", write_package(path, **options, changes=unnamed)
    exclusive = {"task": "classification-multiclass", **unnamed}
    path = write_package(folder / "exclusive", name="exclusive", changes=exclusive)
    yield "a `residual_cnn` of classes that exclude each other", path
    yield "MONAI's `segresnet`", outlining_volumes(folder / "segresnet")
    yield "a U-Net's file", outlining(folder / "outlining")
    encoder = {"task": "embedding", "outputs": [{"decoding": "embedding"}]}
    yield "an encoder", write_package(folder / "encoder", name="encoder", changes=encoder)
    yield "a `vit`'s file", of_tokens(folder / "tokens")
    yield "a file in int8 (QDQ)", rounded(folder)
    plain = onnx_of(network(), torch.zeros(1, SIDE, SIDE))
    strange = {"model.onnx": uninterpreted(plain)}
    yield "a file with an unknown operator", write_onnx_package(folder / "strange", strange)
    yield "a bag of images", write_image_bag(folder / "images")
    yield "a model on a server", write_remote_package(folder / "remote", endpoint=endpoint)
    yield "the spheres' detector", write_windowed_detector(folder / "windows").package


TOKENS: Final = {"classes": len(CLASSES), "image": [SIDE] * 2}
LISTED: Final[dict[str, dict[str, Any]]] = {
    "densenet": {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": len(CLASSES),
        "init_features": 8,
        "growth_rate": 4,
        "block_config": [2, 2],
    },
    "convnext": {"classes": len(CLASSES), "widths": [8, 16], "depths": [1, 1]},
    "vit": {**TOKENS, "patch": 8, "width": 16, "depth": 2, "heads": 2},
    "swin": {**TOKENS, "patch": 2, "width": 8, "depths": [2, 2], "heads": [2, 2], "window": 4},
}
"""Networks of the list, MONAI's `densenet` among them, with arguments that make them small."""

LINES: Final = {
    "task": "segmentation",
    "outputs": [
        {
            "decoding": "voxel_classes",
            "classes": [{"key": each, "label": each.title()} for each in ("tissue", "lesion")],
        }
    ],
    "explain": {"baseline": 0.0},
}
"""What a package of a segmentation says otherwise than a classifier's."""


def said(model: nn.Module, image: Tensor) -> list[float]:
    """Return each class's mean logit on an image ``(C, *spatial)``."""
    with torch.no_grad():
        mean: list[float] = model.eval()(image[None])[0].flatten(1).mean(1).tolist()
    return mean


def outlining(folder: Path) -> Path:
    """Write the package of a U-Net's ONNX file, which outlines in images."""
    torch.manual_seed(0)
    scales = {"kernel_sizes": [[3, 3]] * 2, "strides": [[1, 1], [2, 2]]}
    convolutions = {"n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1]}
    shape = {"input_channels": 1, "num_classes": 2, "features_per_stage": [4, 8]}
    unet = ARCHITECTURES["plain_conv_unet"].model_validate(shape | scales | convolutions).build()
    logits = said(unet, model_input(picture()))
    test = {"title": "plain", "input": "plain.dcm", "logits": logits, "tolerance": 1e-3}
    files = {"model.onnx": onnx_of(unet, torch.zeros(1, SIDE, SIDE))}
    return write_onnx_package(folder, files, id="outlining", selftests=[test], **LINES)


def of_tokens(folder: Path) -> Path:
    """Write the package of a transformer's ONNX file, which says where its tokens lie."""
    model, edge = network(architecture="vit", **LISTED["vit"]), SIDE // LISTED["vit"]["patch"]
    with torch.no_grad():
        logits = model(model_input(picture())[None])[0].tolist()
    test = {"title": "plain", "input": "plain.dcm", "logits": logits, "tolerance": 1e-3}
    files = {"model.onnx": onnx_of(model, torch.zeros(1, SIDE, SIDE))}
    tokens = {"prefix": 1, "grid": [edge, edge]}
    return write_onnx_package(folder, files, id="tokens", selftests=[test], tokens=tokens)


def outlining_volumes(folder: Path) -> Path:
    """Write the package of MONAI's SegResNet, which outlines in volumes."""
    shape = {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}
    series = Series(shape=(8, 16, 16))
    fields = yaml.safe_load((write_package(folder, name="segresnet") / "model.yaml").read_text())
    model = network(architecture="segresnet", **shape)
    save_file(model.state_dict(), folder / "weights.safetensors")
    (folder / "plain.dcm").write_bytes(encoded(enhanced(series)))
    (folder / "inverted.dcm").unlink()
    logits = said(model, torch.from_numpy((series.values + 500) / 500)[None])
    fields |= LINES
    fields["architecture"] = {"name": "segresnet", "parameters": shape}
    fields["files"] = [
        entry_of(folder, "weights.safetensors", "weights", "safetensors"),
        entry_of(folder, "plain.dcm", "selftest", "dicom"),
    ]
    fields["inputs"] = [
        {
            "kind": "volume",
            "layout": "NCDHW",
            "accept": {"modalities": ["CT"], "volume": {}},
            "steps": [{"name": "normalize", "parameters": {"mean": [-500.0], "std": [500.0]}}],
        }
    ]
    fields["selftests"] = [
        {"title": "plain", "input": "plain.dcm", "logits": logits, "tolerance": 1e-3}
    ]
    (folder / "model.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    return folder


def rounded(folder: Path) -> Path:
    """Write the package of a quantized file; its tolerances are a step of its output."""
    files = {"model.onnx": quantized(folder)}
    package = write_onnx_package(folder / "qdq", files, surrogate={"tolerance": 0.5})
    path = package / "model.yaml"
    fields = yaml.safe_load(path.read_text())
    for each in fields["selftests"]:
        each["tolerance"] = 0.5
    path.write_text(yaml.safe_dump(fields))
    return package


def quantized(folder: Path) -> bytes:
    """Return the small network as int8, with pairs of nodes that quantize and back."""
    plain, made = folder / "plain.onnx", folder / "int8.onnx"
    plain.write_bytes(onnx_of(network(), torch.zeros(1, SIDE, SIDE)))
    images = torch.randn(24, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))

    class Images(quantization.CalibrationDataReader):
        left = [{"image": images.numpy()}]

        @override
        def get_next(self) -> dict[str, Any] | None:
            return self.left.pop() if self.left else None

    quantization.quantize_static(
        plain, made, Images(), quant_format=quantization.QuantFormat.QDQ, per_channel=True
    )
    return made.read_bytes()


@contextmanager
def loader(folder: Path, endpoint: str) -> Iterator[Loader]:
    """Have packages loaded as a worker does."""
    scheduler = Scheduler()
    owner = threading.Thread(target=scheduler.run_forever)
    owner.start()
    allowed = RemoteSettings.model_validate({"endpoints": {"lab": endpoint}})
    try:
        with Slots(1, address_space_bytes=SPACES) as slots:
            yield Loader(scheduler, torch.device("cpu"), slots, folder, remote=allowed)
    finally:
        scheduler.stop(drain=False)
        owner.join()


def kinds() -> tuple[Kind, ...]:
    """Return every kind of model, probed."""
    found: dict[tuple[object, ...], Kind] = {}
    server = InferenceServer(onnx_of(network(), torch.zeros(1, SIDE, SIDE)))
    with tempfile.TemporaryDirectory() as name, serving(server):
        folder = Path(name)
        (folder / "scratch").mkdir()
        with loader(folder / "scratch", server.url) as load:
            for told, package in (*bundled(), *drawn(folder, server.url)):
                manifest = read_manifest((package / "model.yaml").read_bytes())
                key = _key(manifest, told)
                if key in found:
                    known = found[key]
                    found[key] = Kind(known.title, (*known.models, told), known.entry)
                    continue
                model = load.load(manifest, package.name, package)
                found[key] = Kind(_title(manifest, model), (told,), model.entry)
    return tuple(found.values())


def _key(manifest: Manifest, told: str) -> tuple[object, ...]:
    """Return what models of one kind have in common: all but their weights."""
    if manifest.architecture is None:
        return (told,)
    parts = manifest.model_dump(mode="json", include={"task", "runtime", "architecture"})
    axes = manifest.image.accept.volume is None
    beside = (axes, bool(manifest.variables), manifest.sliding_window is not None)
    return (str(parts["task"]), manifest.architecture.name, *beside)


def _title(manifest: Manifest, model: Model) -> str:
    """Say what a model is, in a few words."""
    views = manifest.image.views
    axes = f"{len(views)} views" if views else f"{len(model.entry.shape) - 1}-D"
    axes = axes if manifest.image.images is None else "a bag of images"
    if manifest.architecture is not None:
        what = f"`{manifest.architecture.name}`"
    else:
        what = {"onnx": "ONNX", "remote": "on a server"}[manifest.runtime]
    task = manifest.task.removeprefix("classification-")
    beside = ", with numbers" if manifest.variables else ""
    beside += ", in windows" if manifest.sliding_window else ""
    return f"{task}, {what}, {axes}{beside}"


def page(found: tuple[Kind, ...]) -> str:
    """Return the page's text."""
    reasons: dict[str, int] = {}
    methods = [_row(name, found, reasons) for name in ours()]
    head = ["| method |" + "".join(f" {letter(k)} |" for k in range(len(found)))]
    rule = ["|---|" + "---|" * len(found)]
    listed = [
        f"| {letter(k)} | {each.title} | {', '.join(each.models)} |" for k, each in enumerate(found)
    ]
    return TEXT.format(
        code=MissingAbility.code,
        kinds="\n".join(["| | kind | models |", "|---|---|---|", *listed, ""]),
        methods="\n".join([*head, *rule, *methods, ""]),
        reasons="\n".join([*(f"{k}. {why}" for why, k in reasons.items()), ""]),
    )


def letter(column: int) -> str:
    """Return a column's name: A to Z, AA, AB and so on."""
    before = letter(column // LETTERS - 1) if column >= LETTERS else ""
    return before + chr(ord("A") + column % LETTERS)


def _row(name: str, found: tuple[Kind, ...], reasons: dict[str, int]) -> str:
    """Return a method's line."""
    cells = "".join(f" {_cell(name, each.entry, reasons)} |" for each in found)
    return f"| [`{name}`](../methods/{name}.md) |{cells}"


def _cell(name: str, entry: ModelEntry, reasons: dict[str, int]) -> str:
    """Tell whether a model serves a method, or the number of the reason why not."""
    if name in entry.methods:
        stand_in = entry.surrogate is not None and name in entry.surrogate.methods
        return "stand-in" if stand_in else "yes"
    why = entry.refused[name]
    return str(reasons.setdefault(why, len(reasons) + 1))


def without_figures(text: str) -> str:
    """Return a text without measured figures, which differ from processor to processor."""
    return re.sub(r"by [\d.e+-]+ of it", "by # of it", text)


if __name__ == "__main__":
    PAGE.write_text(page(kinds()))
