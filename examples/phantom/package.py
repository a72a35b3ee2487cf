"""Write a demo model's package: weights, manifest, self-tests, calibration cases, figures, card."""

import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from safetensors.torch import load_file, save
from torch import nn

from examples.dicom import Photometric
from examples.packaging import (
    TOLERANCE,
    WEIGHTS,
    architecture,
    file_of,
    rounded,
    write_manifest,
    write_object,
)
from examples.phantom.calibration import PATH as CASES
from examples.phantom.calibration import write_calibration
from examples.phantom.chest import Case, draw
from examples.phantom.dicom import dataset
from examples.phantom.evaluate import LAYER
from examples.phantom.preparation import BASELINE, MEAN, PERCENTILES, SIDE, STD
from examples.phantom.region import REGION
from examples.phantom.samples import Samples, read
from service.domain.fields import Explain
from service.domain.files import Calibration, SelfTest
from service.domain.inputs import Accept, Input, StepChoice
from service.domain.manifest import Manifest
from service.domain.network import Layer
from service.domain.outputs import ClassSpec, Code, Output
from service.domain.target import DEFAULT_TARGETS
from workers.architectures.residual_cnn import ResidualCnn

CLASSES = (
    ("nodule", "Nodule", "786838002", "Nodule of lung"),
    ("consolidation", "Consolidation", "95436008", "Lung consolidation"),
    ("effusion", "Pleural effusion", "60046008", "Pleural effusion"),
    ("cardiomegaly", "Cardiomegaly", "8186001", "Cardiomegaly"),
    ("pneumothorax", "Pneumothorax", "36118008", "Pneumothorax"),
)
"""Key, label, and SNOMED CT code and meaning, in the order of `FINDINGS`."""

GRAPH = "model.onnx"

RECORDS, PRECISIONS = "certificates.json", "precisions.json"
"""What `examples.phantom.certify` found: listed as it is, since stale records do not count."""

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


@dataclass(frozen=True, slots=True)
class About:
    """Which model a package is."""

    id: str
    version: str
    title: str
    intended_use: str
    cases: str
    """What its calibration cases are."""

    twin: bool = False
    """Whether it comes as ONNX too, in a package beside it."""


CLEAN = About(
    id="chest-phantom",
    version="1.1.0",
    title="Chest phantom findings",
    intended_use="Demonstration and tests of Whylight on synthetic chest radiographs.",
    cases="Synthetic chest phantoms; the model was neither trained nor tested on them.",
    twin=True,
)


def load(folder: Path, shape: ResidualCnn) -> nn.Module:
    """Return the network of a package, in evaluation mode."""
    network = shape.build()
    network.load_state_dict(load_file(folder / WEIGHTS))
    return network.eval()


@dataclass(frozen=True, slots=True)
class Content:
    """What a package is made of."""

    network: nn.Module
    """Trained, in evaluation mode."""

    shape: ResidualCnn
    """The architecture that built it."""

    calibration: Samples
    figures: Mapping[str, Any]
    """What was measured."""

    card: str
    """The text that tells it."""


def write(folder: Path, about: About, content: Content) -> None:
    """Write a package for torch to `folder`; if it has a twin for ONNX, that one beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(save(content.network.state_dict()))
    tests = tuple(_selftest(folder, content.network, known) for known in TESTS)
    write_calibration(folder, content.calibration)
    (folder / "figures.json").write_text(json.dumps(content.figures, indent=2) + "\n")
    (folder / "CARD.md").write_text(content.card)
    if about.twin:
        export_onnx(content.network, folder / GRAPH)
        _write_twin(folder, about, tests)
    write_manifest(folder, describe(folder, about, content.shape, tests))


def _write_twin(folder: Path, about: About, tests: tuple[SelfTest, ...]) -> None:
    """Write the package that holds only ONNX."""
    beside = folder.with_name(f"{folder.name}-onnx")
    for path in (GRAPH, "CARD.md", CASES, *(known.path for known in TESTS)):
        (beside / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, beside / path)
    twin = replace(about, id=f"{about.id}-onnx", title=f"{about.title} (ONNX)")
    write_manifest(beside, describe(beside, twin, None, tests))


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


def describe(
    folder: Path, about: About, shape: ResidualCnn | None, tests: tuple[SelfTest, ...]
) -> Manifest:
    """Return the manifest of the files that lie in `folder`.

    Parameters
    ----------
    shape
        The architecture of a package for torch; `None` describes one for ONNX.
    """
    listed = [
        *([("weights", "safetensors", WEIGHTS)] if shape else []),
        *([("forward", "onnx", GRAPH)] if about.twin else []),
        ("calibration", "safetensors", CASES),
        *(("selftest", "dicom", known.path) for known in TESTS),
        *([("certificates", "json", RECORDS)] if (folder / RECORDS).exists() else []),
        *([("precisions", "json", PRECISIONS)] if (folder / PRECISIONS).exists() else []),
    ]
    return Manifest(
        id=about.id,
        version=about.version,
        title=about.title,
        publisher="Whylight",
        license="Apache-2.0",
        intended_use=about.intended_use,
        not_for="Clinical use of any kind: it was trained on drawn images of no person.",
        task="classification-multilabel",
        runtime="torch" if shape else "onnx",
        architecture=architecture(shape) if shape else None,
        files=tuple(file_of(folder, *each) for each in listed),
        inputs=(Input(accept=Accept(modalities=("CR", "DX")), steps=_steps()),),
        outputs=(Output(classes=tuple(_class(*each) for each in CLASSES)),),
        explain=Explain(
            default_targets=DEFAULT_TARGETS,
            layers=(Layer(name=LAYER, onnx=ONNX_LAYER if about.twin else None),),
            baseline=round(BASELINE, 6),
            expected_region=REGION,
        ),
        calibration=Calibration(cases=CASES, synthetic=True, title=about.cases),
        selftests=tests,
    )


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
    write_object(path, dataset(known.case, draw(known.case, known.size), known.photometric))
    image = torch.from_numpy(read(path.read_bytes()))
    with torch.no_grad():
        logits = tuple(rounded(network(image[None, None])[0]))
    return SelfTest(title=known.title, input=known.path, logits=logits, tolerance=TOLERANCE)
