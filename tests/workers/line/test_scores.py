"""Probability and margin through the whole line, of weights and of ONNX files."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from service.domain.explanation import Explanation, Result
from service.domain.job import Job, State
from service.domain.trust import STATEMENTS, Flag
from tests.support.exported import write_onnx_package
from tests.support.hospital import take_in
from tests.support.small_model import (
    CLASSES,
    model_input,
    network,
    picture,
    write_image,
    write_package,
)
from tests.workers.line.conftest import Clinic

OCCLUSION = {"name": "occlusion", "parameters": {"window": 8, "stride": 8, "baseline": 0.0}}
THRESHOLD = 0.25
TARGETS = [
    {"of": "nodule", "score": "probability"},
    {"of": "effusion", "score": "margin"},
    {"of": "nodule"},
]
OUTPUTS = [
    {"classes": [{"key": key, "label": key.title(), "threshold": THRESHOLD} for key in CLASSES]}
]


def certain(net: nn.Module) -> None:
    """Have the network say of a nodule that it is there, whatever it sees."""
    bias = net.get_parameter("head.bias")
    with torch.no_grad():
        bias[0] += 9.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [
        write_package(folder / "weights", threshold=THRESHOLD),
        write_onnx_package(folder / "graph", outputs=OUTPUTS),
        write_package(folder / "certain", name="certain", break_weights=certain, threshold=0.5),
    ]


def explain(clinic: Clinic, package: str, **asked: Any) -> tuple[Job, Explanation]:
    study = take_in(clinic.backends.store, write_image(clinic.folder / "one.dcm", picture(3)))
    asked = {"methods": ["saliency", OCCLUSION], "artifacts": ["json"], **asked}
    return clinic.explain(package, study, **asked)


def values(clinic: Clinic, record: Job, entry: Result) -> NDArray[np.float64]:
    found = json.loads(clinic.artifact(record, entry, "json"))["map"]["values"]
    return np.array(found)


def said(image: torch.Tensor) -> torch.Tensor:
    """What the network says, in double."""
    with torch.no_grad():
        logits: torch.Tensor = network().double()(image[None].double())[0]
    return logits


@pytest.mark.parametrize("package", ["weights", "graph"])
def test_maps_of_a_probability_are_what_small_changes_of_the_image_do_to_it(
    clinic: Clinic, package: str
) -> None:
    record, told = explain(clinic, package, targets=TARGETS)
    assert record.state is State.SUCCEEDED, told.failure
    entries = {(each.method, each.target.key): each for each in told.results if each.target}
    image = model_input(picture(3))
    chance = said(image)[0].sigmoid().item()
    slopes = entries["saliency", "nodule-probability"]
    assert slopes.target is not None
    assert slopes.target.score == pytest.approx(chance, abs=1e-5)
    found = values(clinic, record, slopes)
    for place in [(0, 3, 4), (0, 16, 24), (0, 40, 11)]:
        shift = torch.zeros_like(image, dtype=torch.float64)
        shift[place] = 1e-4
        above, below = (said(image + way * shift)[0].sigmoid().item() for way in (1, -1))
        assert found[place] == pytest.approx((above - below) / 2e-4, rel=1e-3, abs=1e-7)
    hidden = values(clinic, record, entries["occlusion", "nodule-probability"])
    for row, column in [(0, 0), (2, 3), (4, 1)]:
        without = image.clone()
        without[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0.0
        fall = chance - said(without)[0].sigmoid().item()
        assert hidden[0, row, column] == pytest.approx(fall, abs=2e-6)


@pytest.mark.parametrize("package", ["weights", "graph"])
def test_a_margin_over_a_threshold_has_the_map_of_the_logit(clinic: Clinic, package: str) -> None:
    targets = [{"of": "effusion", "score": "margin"}, {"of": "effusion"}]
    record, told = explain(clinic, package, targets=targets)
    for method in ("saliency", "occlusion"):
        margin, plain = (each for each in told.results if each.method == method)
        assert margin.target is not None
        assert plain.target is not None
        over = np.log(THRESHOLD / (1 - THRESHOLD))
        assert margin.target.score == pytest.approx(plain.target.score - over, abs=1e-5)
        np.testing.assert_allclose(
            values(clinic, record, margin), values(clinic, record, plain), rtol=1e-3, atol=2e-6
        )


def test_only_maps_of_the_logit_are_certified_and_names_tell_the_score(clinic: Clinic) -> None:
    formats = ["json", "dicom_sc", "dicom_sr", "png"]
    asked = {"targets": TARGETS, "methods": ["saliency"], "artifacts": formats}
    record, told = explain(clinic, "weights", **asked)
    probability, margin, plain = told.results
    for entry in (probability, margin):
        assert entry.trust is not None
        assert entry.trust.certificate is not None
        assert entry.trust.certificate.reason == "score_is_no_logit"
        assert Flag.UNCERTIFIED in entry.trust.flags
        assert entry.trust.grade != "supported"
        outcomes = {each.name: each.outcome for each in entry.checks}
        assert outcomes["target_specific"] == "not_applicable"
    assert plain.trust is not None
    assert plain.trust.certificate is None or plain.trust.certificate.reason != "score_is_no_logit"
    names = [each.name for each in probability.artifacts]
    assert all(name.startswith("saliency.nodule-probability.") for name in names)
    report = str(pydicom.dcmread(io.BytesIO(clinic.artifact(record, probability, "dicom_sr"))))
    assert "Score that is explained (probability)" in report
    report = str(pydicom.dcmread(io.BytesIO(clinic.artifact(record, margin, "dicom_sr"))))
    assert "Score that is explained (logit above its threshold)" in report


def test_a_probability_that_is_nearly_certain_says_so_beside_its_map(clinic: Clinic) -> None:
    targets = [{"of": "nodule", "score": "probability"}, {"of": "nodule"}]
    asked = {"targets": targets, "methods": ["saliency"], "artifacts": ["json", "dicom_sr"]}
    record, told = explain(clinic, "certain", **asked)
    flagged, plain = told.results
    assert flagged.target is not None
    assert flagged.target.saturated
    assert flagged.target.score > 0.99
    assert flagged.trust is not None
    assert plain.trust is not None
    assert Flag.SATURATED in flagged.trust.flags
    assert STATEMENTS[Flag.SATURATED] in flagged.trust.statements
    assert Flag.SATURATED not in plain.trust.flags
    report = str(pydicom.dcmread(io.BytesIO(clinic.artifact(record, flagged, "dicom_sr"))))
    assert "saturated" in report
    strengths = [np.abs(values(clinic, record, each)).max() for each in (flagged, plain)]
    slope = flagged.target.score * (1 - flagged.target.score)
    assert strengths[0] == pytest.approx(slope * strengths[1], rel=0.01)  # why it warns
