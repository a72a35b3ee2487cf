"""Numbers beside a bag, and beside windows, through the whole line."""

import io
import json
import warnings

import numpy as np
import pytest
import torch
import yaml
from monai.inferers.utils import sliding_window_inference
from safetensors.torch import save_file
from torch import nn

from service.domain.job import State
from tests.support.exported import write_onnx_package
from tests.support.hospital import take_in
from tests.support.phantom_dicom import encoded
from tests.support.small_model import (
    SIDE,
    entry_of,
    model_input,
    picture,
    write_image,
    write_package,
)
from tests.support.volumes import Series, enhanced
from workers.architectures.attention_mil import AttentionMil

WINDOW = 32
DOSE = {"key": "dose", "label": "Dose", "minimum": 0, "maximum": 4, "baseline": 1, "default": 1}
AGE = {
    "key": "age",
    "label": "Age",
    "minimum": 0,
    "maximum": 100,
    "baseline": 50,
    "mean": 50,
    "std": 20,
}
VALUES = {"age": 80, "dose": 3}
NORMAL, USUAL = (1.5, 3.0), (0.0, 1.0)
"""The same, and the baselines, as networks take them."""

BESIDE = {"name": "numbers", "kind": "tabular", "variables": [AGE, DOSE]}
SERIES = Series(shape=(8, 24, 20))
MEAN, STD = -300.0, 400.0
BOX = (4, 20, 36, 44)


class Cells(nn.Module):
    """Two classes at each pixel; what is seen is scaled by the numbers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.see = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.scale, self.head = nn.Linear(2, 4), nn.Conv2d(4, 2, 1)

    def forward(self, image, numbers):
        return self.head(self.see(image) * self.scale(numbers)[:, :, None, None])


CELLS = Cells().eval()


def blended(stored, numbers):
    """MONAI's answer on a picture, shape ``(2, rows, columns)``."""
    beside = torch.tensor([numbers])
    with torch.no_grad():
        return sliding_window_inference(
            model_input(stored)[None],
            (WINDOW, WINDOW),
            1,
            lambda window: CELLS(window, beside),
            0.5,
            "gaussian",
        )[0]


def windows_package(folder):
    """A segmentation in windows as ONNX, which takes numbers."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            CELLS,
            (torch.zeros(1, 1, WINDOW, WINDOW), torch.zeros(1, 2)),
            file,
            dynamo=False,
            input_names=["image", "numbers"],
            output_names=["logits"],
            dynamic_axes={name: {0: "rows"} for name in ("image", "numbers", "logits")},
        )
    write_onnx_package(folder, {"model.onnx": file.getvalue()})
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    said = blended(picture(rows=SIDE, columns=SIDE), NORMAL).flatten(1).double().mean(1)
    fields |= {"id": "cells", "task": "segmentation"}
    fields["inputs"].append(BESIDE)
    fields["sliding_window"] = {"size": [WINDOW, WINDOW]}
    classes = [{"key": key, "label": key.title()} for key in ("tissue", "lesion")]
    fields["outputs"] = [{"classes": classes, "decoding": "voxel_classes"}]
    for each in fields["selftests"]:
        each |= {"values": dict(VALUES), "logits": said.tolist()}
    (folder / "model.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    return folder


def bag_network():
    torch.manual_seed(2)
    made = AttentionMil(classes=1, widths=(4,), hidden=6, variables=2).build()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.0)
    return made.eval()


BAG = bag_network()


def told_of_bag(instances, numbers):
    with torch.no_grad():
        image = torch.from_numpy((SERIES.values[list(instances)] - MEAN) / STD)[None, None]
        return float(BAG(image, torch.tensor([numbers]))[0, 0])


def bag_package(folder):
    """A bag of slices that takes numbers."""
    write_package(folder, name="bag")
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    save_file(BAG.state_dict(), folder / "weights.safetensors")
    (folder / "plain.dcm").write_bytes(encoded(enhanced(SERIES)))
    (folder / "inverted.dcm").unlink()
    fields["files"] = [
        entry_of(folder, "weights.safetensors", "weights", "safetensors"),
        entry_of(folder, "plain.dcm", "selftest", "dicom"),
    ]
    shape = AttentionMil(classes=1, widths=(4,), hidden=6, variables=2).model_dump(mode="json")
    fields["architecture"] = {"name": "attention_mil", "parameters": shape}
    image = {
        "kind": "volume",
        "layout": "NCDHW",
        "accept": {"modalities": ["CT"], "volume": {}},
        "bag": {"attention": {"name": "attention"}},
        "steps": [{"name": "normalize", "parameters": {"mean": [MEAN], "std": [STD]}}],
    }
    fields["inputs"] = [image, BESIDE]
    fields["outputs"] = [{"classes": [{"key": "bleeding", "label": "Bleeding", "threshold": 1e-6}]}]
    fields["explain"] = {"layers": [{"name": "peaks"}], "baseline": 0.0}
    test = {"title": "plain", "input": "plain.dcm", "values": VALUES, "tolerance": 1e-3}
    fields["selftests"] = [test | {"logits": [told_of_bag(range(8), NORMAL)]}]
    (folder / "model.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [windows_package(folder / "cells"), bag_package(folder / "bag")]


def explain(clinic, model, files, **asked):
    study = take_in(clinic.backends.store, *files)
    record, told = clinic.explain(model, study, values=VALUES, **asked)
    assert record.state is State.SUCCEEDED, told.failure
    return record, told


def shares_of(entry):
    return {each.key: each.relevance for each in entry.variables}


def test_windows_are_explained_beside_the_patients_numbers(clinic):
    """Shares by occlusion are what MONAI's blend loses without each number."""
    stored = picture(3)
    file = write_image(clinic.folder / "image.dcm", stored)
    target = {"kind": "segmentation", "of": "lesion", "region": {"kind": "box", "box": BOX}}
    methods = [{"name": "occlusion", "parameters": {"window": 16}}, "integrated_gradients"]
    _, told = explain(clinic, "cells", [file], targets=[target], methods=methods, checks="full")
    inside = (slice(BOX[0], BOX[2]), slice(BOX[1], BOX[3]))

    def score(numbers):
        return float(blended(stored, numbers)[1][inside].double().mean())

    hidden, path = told.results
    assert hidden.target.score == pytest.approx(score(NORMAL), rel=1e-4)
    falls = {
        "age": score(NORMAL) - score((USUAL[0], NORMAL[1])),
        "dose": score(NORMAL) - score((NORMAL[0], USUAL[1])),
    }
    assert shares_of(hidden) == pytest.approx(falls, rel=1e-3)
    assert min(map(abs, falls.values())) > 0.01
    total = path.map.sum + sum(shares_of(path).values())
    assert total == pytest.approx(path.extras["score_change"], rel=0.05)
    checks = {each.name: each.outcome for each in path.checks}
    assert checks["completeness"] == checks["repeat"] == "pass"


def test_a_bag_is_explained_beside_the_patients_numbers(clinic):
    folder = clinic.folder
    files = []
    for number, data in enumerate(SERIES.files()):
        files.append(folder / f"{number}.dcm")
        files[-1].write_bytes(data)
    record, told = explain(
        clinic,
        "bag",
        files,
        targets=["bleeding"],
        methods=["integrated_gradients", "hires_cam"],
        artifacts=["json", "png", "dicom_sr"],
    )
    path, cam = told.results
    whole = told_of_bag(range(8), NORMAL)
    assert path.target.score == pytest.approx(whole, rel=1e-4)
    for each in cam.instances:
        kept = [number for number in range(8) if number != each.slice - 1]
        assert each.relevance == pytest.approx(whole - told_of_bag(kept, NORMAL), abs=1e-3)
    assert cam.variables == ()
    assert set(shares_of(path)) == {"age", "dose"}
    total = path.map.sum + sum(shares_of(path).values())
    assert total == pytest.approx(path.extras["score_change"], rel=0.1)
    found = json.loads(clinic.artifact(record, path, "json"))
    assert [each["slice"] for each in found["instances"]] == [each.slice for each in path.instances]
    relevances = [each["relevance"] for each in found["variables"]]
    assert relevances == pytest.approx(list(shares_of(path).values()))
    assert np.isfinite(relevances).all()
