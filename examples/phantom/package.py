"""Write the demo model's package: weights twice, manifest, self-tests, figures, card."""

import hashlib
import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from pydantic import JsonValue
from safetensors.torch import save
from torch import nn

from examples.phantom.card import Figures, write_card
from examples.phantom.chest import Case, draw
from examples.phantom.dicom import Photometric, dataset
from examples.phantom.dicom import write as write_dicom
from examples.phantom.evaluate import LAYER
from examples.phantom.preparation import BASELINE, MEAN, PERCENTILES, SIDE, STD
from examples.phantom.samples import read
from service.domain.manifest import (
    Accept,
    ClassSpec,
    Code,
    Explain,
    File,
    Input,
    Layer,
    Manifest,
    Output,
    SelfTest,
    StepChoice,
)
from service.domain.manifest import Architecture as ArchitectureChoice
from workers.architectures.residual_cnn import ResidualCnn

CLASSES = (
    ("nodule", "Nodule", "786838002", "Nodule of lung"),
    ("consolidation", "Consolidation", "95436008", "Lung consolidation"),
    ("effusion", "Pleural effusion", "60046008", "Pleural effusion"),
    ("cardiomegaly", "Cardiomegaly", "8186001", "Cardiomegaly"),
    ("pneumothorax", "Pneumothorax", "36118008", "Pneumothorax"),
)
"""Key, label, and SNOMED CT code and meaning, in the order of `FINDINGS`."""

ONNX_LAYER = f"/{LAYER}/Mul_output_0"
"""The tensor that `LAYER` puts out, as the exporter names it."""


@dataclass(frozen=True, slots=True)
class Known:
    """A self-test: a small phantom of known answer."""

    title: str
    path: str
    case: Case
    size: tuple[int, int]
    photometric: Photometric


TESTS = (
    Known(
        title="An ordinary radiograph with a nodule",
        path="selftest/ordinary.dcm",
        case=Case(7_001, frozenset({"nodule"})),
        size=(384, 384),
        photometric="MONOCHROME2",
    ),
    Known(
        title="MONOCHROME1 on a portrait plate, with effusion and cardiomegaly",
        path="selftest/monochrome1.dcm",
        case=Case(7_002, frozenset({"effusion", "cardiomegaly"})),
        size=(416, 339),
        photometric="MONOCHROME1",
    ),
)

TOLERANCE = 0.05
"""Allowed difference of a self-test's logits: room for another resampling arithmetic."""


def write(folder: Path, network: nn.Module, shape: ResidualCnn, figures: Figures) -> None:
    """Write two packages: `folder` for torch, and beside it one that holds only ONNX.

    Parameters
    ----------
    network
        The trained network, in evaluation mode.
    shape
        The architecture that built it.
    figures
        What was measured: ``recipe``, ``detection`` and ``pointing``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(save(network.state_dict()))
    export_onnx(network, folder / "model.onnx")
    tests = tuple(_selftest(folder, network, known) for known in TESTS)
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    parameters = sum(each.numel() for each in network.parameters())
    write_card(folder / "CARD.md", figures, parameters, LAYER)
    _write_manifest(folder, describe(folder, shape, tests))
    beside = folder.with_name(f"{folder.name}-onnx")
    for path in ("model.onnx", "CARD.md", *(test.input for test in tests)):
        (beside / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, beside / path)
    _write_manifest(beside, describe(beside, None, tests))


def export_onnx(network: nn.Module, path: Path) -> None:
    """Write the network as ONNX with a free batch axis; batch norms are folded."""
    with warnings.catch_warnings():
        # The newer exporter needs onnxscript and names no tensor after its module.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            (torch.zeros(2, 1, SIDE, SIDE),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )


def describe(folder: Path, shape: ResidualCnn | None, tests: tuple[SelfTest, ...]) -> Manifest:
    """Return the manifest of the files that lie in `folder`.

    Parameters
    ----------
    shape
        The architecture of the torch package; `None` describes the one for ONNX.
    """
    weights = [("forward", "onnx", "model.onnx")]
    if shape is not None:
        weights.insert(0, ("weights", "safetensors", "weights.safetensors"))
    return Manifest(
        id="chest-phantom" if shape else "chest-phantom-onnx",
        version="1.0.0",
        title="Chest phantom findings" if shape else "Chest phantom findings (ONNX)",
        publisher="Whylight",
        license="Apache-2.0",
        intended_use="Demonstration and tests of Whylight on synthetic chest radiographs.",
        not_for="Clinical use of any kind: it was trained on drawn images of no person.",
        task="classification-multilabel",
        runtime="torch" if shape else "onnx",
        architecture=_architecture(shape) if shape else None,
        files=tuple(
            _file(folder, *each)
            for each in (*weights, *(("selftest", "dicom", test.input) for test in tests))
        ),
        inputs=(Input(accept=Accept(modalities=("CR", "DX")), steps=_steps()),),
        outputs=(Output(classes=tuple(_class(*each) for each in CLASSES)),),
        explain=Explain(layers=(Layer(name=LAYER, onnx=ONNX_LAYER),), baseline=round(BASELINE, 6)),
        selftests=tests,
    )


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    content = manifest.model_dump(mode="json", exclude_none=True)
    (folder / "model.yaml").write_text(yaml.safe_dump(content, sort_keys=False, width=100))


def _architecture(shape: ResidualCnn) -> ArchitectureChoice:
    return ArchitectureChoice(name="residual_cnn", parameters=shape.model_dump(mode="json"))


def _steps() -> tuple[StepChoice, ...]:
    low, high = PERCENTILES
    window: dict[str, JsonValue] = {"kind": "percentile", "low": low, "high": high}
    resize: dict[str, JsonValue] = {
        "size": [SIDE, SIDE],
        "aspect": "stretch",
        "antialias": True,
        "interpolation": "linear",
    }
    return (
        StepChoice(name="invert_monochrome1"),
        StepChoice(name="window", parameters=window),
        StepChoice(name="resize", parameters=resize),
        StepChoice(name="normalize", parameters={"mean": [MEAN], "std": [STD]}),
    )


def _class(key: str, label: str, code: str, meaning: str) -> ClassSpec:
    concept = Code(system="SCT", value=code, meaning=meaning)
    return ClassSpec(key=key, label=label, code=concept, threshold=0.5)


def _selftest(folder: Path, network: nn.Module, known: Known) -> SelfTest:
    path = folder / known.path
    write_dicom(path, dataset(known.case, draw(known.case, known.size), known.photometric))
    image = torch.from_numpy(read(path.read_bytes()))
    with torch.no_grad():
        logits = network(image[None, None])[0].tolist()
    rounded = tuple(round(value, 5) for value in logits)
    return SelfTest(title=known.title, input=known.path, logits=rounded, tolerance=TOLERANCE)


def _file(folder: Path, role: str, format_: str, path: str) -> File:
    content = (folder / path).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return File.model_validate(
        {"role": role, "format": format_, "path": path, "sha256": digest, "bytes": len(content)}
    )
