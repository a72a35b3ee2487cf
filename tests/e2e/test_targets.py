"""Targets of every kind through the whole stack: asked by HTTP, and what comes back."""

import io
import zipfile

import numpy as np
import pydicom
import pytest

from examples.planted.dicom import plate
from examples.planted.pictures import hand, shapes
from tests.support import journey
from tests.support.phantom_dicom import encoded
from tests.support.segmentations import segmentation, written

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

HAND = hand(4_711, 180.0)
SHAPES = shapes(4_712, {"cyst": 1, "stone": 1})
FORMATS = ["json", "png", "dicom_sc", "dicom_sr"]
AWAY = 6
"""Source pixels that a peak may lie beside what was planted."""


@pytest.fixture(scope="module", autouse=True)
def _models(stack):
    stack.add_models("bone-age-phantom", "shape-phantom")


def beside(mask, place):
    return np.linalg.norm(np.argwhere(mask) - np.array(place), axis=1).min()


def sent(client, *objects):
    """Send objects as one archive; return the study."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, each in enumerate(objects):
            archive.writestr(f"object{number}", each)
    answer = client.post(
        "/v1/studies", content=buffer.getvalue(), headers={"Content-Type": "application/zip"}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def explained(client, study, model, target, **others):
    """Ask about one target; return the job and its one result."""
    asked = {"model": model, "targets": [target], "artifacts": FORMATS, **others}
    job = journey.explain(client, journey.request(study["id"], "grad_cam", **asked))
    assert job["state"] == "succeeded", job["failure"]
    (result,) = job["results"]
    assert result["status"] == "succeeded", result["reason"]
    return job, result


def report(client, job, result):
    """Return the structured report of a result."""
    (name,) = [each["name"] for each in result["artifacts"] if each["format"] == "dicom_sr"]
    return pydicom.dcmread(
        io.BytesIO(client.get(f"/v1/explanations/{job['id']}/artifacts/{name}").content)
    )


def test_why_one_class_and_not_another(client):
    study = journey.upload(client)
    target = {"kind": "contrast", "of": "nodule", "versus": "effusion"}
    job, result = explained(client, study, journey.MODEL, target)
    logits = {each["key"]: each["logit"] for each in job["predictions"]}
    told = result["target"]
    assert told["key"] == "nodule-versus-effusion"
    assert told["score"] == pytest.approx(logits["nodule"] - logits["effusion"], abs=1e-4)
    assert result["trust"]["certificate"]["reason"] == "target_is_no_class"
    assert {each["format"] for each in result["artifacts"]} == set(FORMATS)


def test_how_many_percent_a_place_is_worth(client):
    study = journey.upload(client)
    target = {"kind": "class", "of": "nodule", "score": "probability"}
    job, result = explained(client, study, journey.MODEL, target)
    said = {each["key"]: each["probability"] for each in job["predictions"]}
    told = result["target"]
    assert told["key"] == "nodule-probability"
    assert told["score"] == pytest.approx(said["nodule"], abs=1e-5)
    assert told["saturated"] is (said["nodule"] * (1 - said["nodule"]) < 0.01)
    assert ("saturated" in result["trust"]["flags"]) is told["saturated"]
    assert result["trust"]["certificate"]["reason"] == "score_is_no_logit"
    assert "Score that is explained (probability)" in str(report(client, job, result))
    asked = journey.request(study["id"], "grad_cam_plus_plus", targets=[target])
    refused = client.post("/v1/explanations", json=asked).json()
    assert refused["code"] == "method_not_applicable"
    assert refused["facts"]["score"] == "probability"
    assert "grad_cam" in refused["facts"]["methods"]


def test_why_a_value_is_higher_than_a_reference(client):
    study = sent(client, encoded(plate(HAND, "e2e hand", "HAND")))
    target = {"kind": "regression", "of": "bone_age", "reference": 120}
    job, result = explained(client, study, "bone-age-phantom", target)
    (said,) = job["predictions"]
    assert abs(said["value"] - 180) < 20
    assert result["target"]["score"] == pytest.approx(said["value"] - 120, abs=1e-3)
    assert result["target"]["unit"] == "mo"
    assert beside(HAND.masks["growth_center"], result["map"]["peak"]) <= AWAY
    assert result["trust"]["certificate"]["outcome"] == "not_certifiable"
    texts = str(report(client, job, result))
    assert "Bone age" in texts


def test_why_a_shape_is_seen_where_the_model_sees_it_and_where_a_reader_marked_it(client):
    picture = plate(SHAPES, "e2e shapes", "KIDNEY")
    marks = written(segmentation([picture], SHAPES.masks["stone"][None]))
    study = sent(client, encoded(picture), marks)
    assert [each["modality"] for each in study["instances"]] == ["CR", "SEG"]
    for region, key in (
        ({"kind": "predicted_mask"}, "stone"),
        ({"kind": "segment", "segment": "Lesion"}, "stone-segment-in_0002-1"),
    ):
        target = {"kind": "segmentation", "of": "stone", "region": region}
        job, result = explained(client, study, "shape-phantom", target)
        assert job["subject"]["instance"] == "in_0001"
        assert result["target"]["key"] == key
        assert result["target"]["region"]["cells"] == pytest.approx(
            SHAPES.masks["stone"].sum() / 4, rel=0.1
        )
        assert beside(SHAPES.masks["stone"], result["map"]["peak"]) <= AWAY


def test_a_region_that_is_not_there_is_refused_before_it_is_queued(client):
    study = sent(client, encoded(plate(SHAPES, "e2e bare", "KIDNEY")))
    target = {"kind": "segmentation", "of": "stone", "region": {"kind": "segment"}}
    body = journey.request(study["id"], model="shape-phantom", targets=[target])
    answer = client.post("/v1/explanations", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_target")
    assert answer.json()["errors"][0]["pointer"] == "/targets/0/region/instance"
    other = client.post(
        "/v1/explanations", json=body | {"targets": [{"kind": "regression", "of": 0}]}
    )
    assert (other.status_code, other.json()["facts"]["kinds"]) == (422, ["segmentation"])
