"""Several views with numbers beside them, told by two folds, and a bag of images with numbers."""

import json

import pytest
import torch
import yaml
from safetensors.torch import save_file

from examples.breasts.dicom import study as views_of
from examples.breasts.drawing import VIEWS, draw
from examples.breasts.train import prepared
from service.domain.job import State
from tests.support.image_bag import SHOWN, images, write_image_bag
from tests.support.small_model import entry_of
from tests.workers.line.conftest import MODELS
from workers.architectures.attention_mil import AttentionMil
from workers.architectures.multi_view_cnn import MultiViewCnn

DRAWING = draw(4_242, ["l_mlo"])
AGE = {
    "key": "age",
    "label": "Age",
    "unit": "a",
    "minimum": 0,
    "maximum": 100,
    "baseline": 50,
    "mean": 50,
    "std": 20,
    "source": "PatientAge",
}
DENSITY = {"key": "density", "label": "Density", "minimum": 1, "maximum": 4, "baseline": 2}
BESIDE = {"name": "numbers", "kind": "tabular", "variables": [AGE, DENSITY | {"default": 2}]}
GIVEN, USUAL = (1.0, 3.0), (0.0, 2.0)
"""An age of 70 and a density of 3 as networks take them, and the baselines."""

SHAPE = MultiViewCnn(views=4, classes=2, widths=(4, 6), variables=2)
QUICK = [
    {"name": "integrated_gradients", "parameters": {"steps": 32}},
    {"name": "occlusion", "parameters": {"window": 32, "stride": 32}},
    "hires_cam",
]


def fold(seed):
    torch.manual_seed(seed)
    made = SHAPE.build()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.0)
    return made.eval()


FOLDS = [fold(1), fold(2)]


def told(numbers, drawing=DRAWING):
    """What both folds say together, by the networks themselves."""
    views, beside = torch.from_numpy(prepared(drawing))[None], torch.tensor([numbers])
    with torch.no_grad():
        return torch.stack([each(views, beside)[0] for each in FOLDS]).mean(0)


def views_package(folder):
    source = MODELS / "four-view-phantom"
    fields = yaml.safe_load((source / "model.yaml").read_text())
    folder.mkdir()
    fields |= {"id": "together", "files": []}
    for number, network in enumerate(FOLDS):
        save_file(network.state_dict(), folder / f"{number}.safetensors")
        fields["files"].append(entry_of(folder, f"{number}.safetensors", "weights", "safetensors"))
    fields["members"] = {"weights": ["0.safetensors", "1.safetensors"]}
    fields["architecture"]["parameters"] = SHAPE.model_dump(mode="json")
    fields["inputs"].append(BESIDE)
    test = {"title": "one", "input": {}, "values": {"age": 70, "density": 3}, "tolerance": 0.01}
    for view, each in views_of(DRAWING, "selftest").items():
        each.save_as(folder / f"{view}.dcm", enforce_file_format=True)
        fields["files"].append(entry_of(folder, f"{view}.dcm", "selftest", "dicom"))
        test["input"][view] = f"{view}.dcm"
    fields["selftests"] = [test | {"logits": told(GIVEN).tolist()}]
    (folder / "model.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    return folder


def bag_package(folder):
    """A bag of images beside numbers, with weights of no training."""
    write_image_bag(folder)
    fields = yaml.safe_load((folder / "model.yaml").read_text())
    shape = AttentionMil(classes=1, widths=(4,), hidden=6, variables=2)
    torch.manual_seed(3)
    network = shape.build().eval()
    save_file(network.state_dict(), folder / "weights.safetensors")
    fields["files"][0] = entry_of(folder, "weights.safetensors", "weights", "safetensors")
    fields |= {"id": "bag", "architecture": {"name": shape.name}}
    fields["architecture"]["parameters"] = shape.model_dump(mode="json")
    fields["inputs"].append(BESIDE)
    for each in fields["selftests"]:
        each |= {"values": {"age": 70, "density": 3}, "logits": [0.0], "tolerance": 1.0}
    (folder / "model.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [views_package(folder / "together"), bag_package(folder / "bag")]


def explain(clinic, ages, **asked):
    views = views_of(DRAWING, "together")
    for (_, each), age in zip(views.items(), ages, strict=True):
        each.PatientAge = age
    return clinic.explain("together", clinic.take_in(views.values()), **asked)


def by_view(told, method):
    return {each.view.key: each for each in told.results if each.method == method}


@pytest.fixture(scope="module")
def explained(clinic):
    return explain(
        clinic,
        ["070Y"] * 3 + [""],
        values={"density": 3},
        targets=["left"],
        methods=QUICK,
        artifacts=["json", "dicom_sr", "png"],
        checks="full",
    )


def test_the_folds_are_told_the_patients_numbers_out_of_all_headers(explained):
    record, document = explained
    assert record.state is State.SUCCEEDED, document.failure
    given = {each.key: (each.value, each.origin) for each in document.subject.variables}
    assert given == {"age": (70, "dicom"), "density": (3, "request")}
    said = [each.logit for each in document.predictions]
    assert said == pytest.approx(told(GIVEN).tolist(), abs=1e-3)


def test_each_number_adds_what_the_folds_lose_without_it(explained):
    falls = {
        "age": float((told(GIVEN) - told((USUAL[0], GIVEN[1])))[0]),
        "density": float((told(GIVEN) - told((GIVEN[0], USUAL[1])))[0]),
    }
    assert min(map(abs, falls.values())) > 1e-3
    for entry in by_view(explained[1], "occlusion").values():
        assert {e.key: e.relevance for e in entry.variables} == pytest.approx(falls, abs=2e-4)
    for entry in by_view(explained[1], "hires_cam").values():
        assert entry.variables == ()


def test_maps_of_all_views_and_numbers_add_up(clinic, explained):
    record, document = explained
    entries = by_view(document, "integrated_gradients")
    assert list(entries) == list(VIEWS)
    shares = {tuple(e.relevance for e in each.variables) for each in entries.values()}
    assert len(shares) == 1
    total = sum(each.map.sum for each in entries.values()) + sum(shares.pop())
    one = entries["l_cc"]
    assert total == pytest.approx(one.extras["score_change"], rel=0.05)
    for entry in entries.values():
        checks = {each.name: each.outcome for each in entry.checks}
        assert checks["completeness"] == checks["repeat"] == "pass"
    found = json.loads(clinic.artifact(record, one, "json"))
    assert [each["relevance"] for each in found["variables"]] == pytest.approx(
        [each.relevance for each in one.variables]
    )


def test_views_of_another_age_fail_the_job_until_the_request_says(clinic):
    ages = ["070Y", "070Y", "071Y", ""]
    record, document = explain(clinic, ages, targets=["left"])
    assert record.state is State.FAILED
    assert document.failure.code == "missing_value"
    assert document.failure.facts["contradicted"] == ["age"]
    record, _ = explain(clinic, ages, targets=["left"], values={"age": 70})
    assert record.state is State.SUCCEEDED


def test_numbers_stand_beside_every_image_of_a_bag(clinic):
    objects = images("beside", SHOWN[:3])
    for each in objects:
        each.PatientAge = "070Y"
    record, document = clinic.explain(
        "bag",
        clinic.take_in(objects),
        targets=["dense"],
        methods=[{"name": "integrated_gradients", "parameters": {"steps": 64}}, QUICK[1]],
        values={"density": 3},
    )
    assert record.state is State.SUCCEEDED, document.failure
    for method in ("integrated_gradients", "occlusion"):
        entries = [each for each in document.results if each.method == method]
        assert len(entries) == 3
        assert all({e.key for e in each.variables} == {"age", "density"} for each in entries)
    for entry in document.results[:3]:
        checks = {each.name: each.outcome for each in entry.checks}
        assert checks["completeness"] == "pass"
