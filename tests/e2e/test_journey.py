"""The main job: a study goes in, and what comes out is right in every form."""

import io
import json

import numpy as np
import pydicom
import pytest
from PIL import Image

from service.command.lesions import Lesions
from tests.support import journey

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

METHODS = ("saliency", "integrated_gradients", "grad_cam", "occlusion")
FORMATS = ["dicom_sr", "dicom_pm", "dicom_sc", "dicom_sc_word", "png", "json", "npy"]


@pytest.fixture(scope="module")
def job(client):
    study = journey.upload(client)
    body = journey.request(study["id"], *METHODS, artifacts=FORMATS, targets=["nodule"])
    job = journey.explain(client, body)
    assert job["state"] == "succeeded", job["failure"]
    return job


@pytest.fixture(scope="module")
def files(client, job):
    """Every artifact's bytes by name."""
    found = {}
    for result in job["results"]:
        for artifact in result["artifacts"]:
            answer = client.get(f"/v1/explanations/{job['id']}/artifacts/{artifact['name']}")
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(artifact["media_type"])
            assert len(answer.content) == artifact["bytes"]
            found[artifact["name"]] = answer.content
    return found


@pytest.fixture(scope="module")
def source():
    return pydicom.dcmread(journey.NODULE)


def test_every_method_leaves_every_format(files):
    extensions = ("sr.dcm", "dcm", "word.dcm", "png", "json", "npy")
    assert set(files) == {f"{method}.nodule.{each}" for method in METHODS for each in extensions}


def test_what_does_not_suit_a_radiograph_is_told_and_refused_by_name(client, job):
    for result in job["results"]:
        (omitted,) = result["omitted"]
        assert (omitted["format"], omitted["name"]) == (
            "dicom_pm",
            f"{result['method']}.nodule.pm.dcm",
        )
        answer = client.get(f"/v1/explanations/{job['id']}/artifacts/{omitted['name']}")
        assert answer.status_code == 406
        assert "dicom_sc_word" in answer.json()["facts"]["alternatives"]


@pytest.mark.parametrize("method", METHODS)
def test_the_report_ties_the_objects_together(files, source, method):
    report = pydicom.dcmread(io.BytesIO(files[f"{method}.nodule.sr.dcm"]))
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    named = {
        each.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    }
    beside = (files[f"{method}.nodule.{each}"] for each in ("dcm", "word.dcm"))
    made = {pydicom.dcmread(io.BytesIO(each)).SOPInstanceUID for each in beside}
    assert named == {source.SOPInstanceUID, *made}


def test_the_model_sees_the_nodule_and_no_more_than_it_should(job):
    said = {each["key"]: each["above_threshold"] for each in job["predictions"]}
    drawn = Lesions(journey.STUDIES).findings(journey.NODULE)
    assert {key for key, above in said.items() if above} == drawn


@pytest.mark.parametrize("method", METHODS)
def test_the_dicom_object_belongs_to_the_study_it_explains(files, source, method):
    made = pydicom.dcmread(io.BytesIO(files[f"{method}.nodule.dcm"]))
    assert made.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert made.StudyInstanceUID == source.StudyInstanceUID
    assert made.PatientID == source.PatientID
    assert made.SeriesInstanceUID != source.SeriesInstanceUID
    assert made.pixel_array.ndim == 3
    assert made.Rows >= source.Rows


@pytest.mark.parametrize("method", METHODS)
def test_the_picture_can_be_looked_at(files, method):
    with Image.open(io.BytesIO(files[f"{method}.nodule.png"])) as picture:
        colors = np.asarray(picture.convert("RGB"), np.uint32) @ (1 << 16, 1 << 8, 1)
    assert len(np.unique(colors)) > 100


@pytest.mark.parametrize("method", METHODS)
def test_the_array_and_the_json_hold_the_same_map(files, method):
    array = np.load(io.BytesIO(files[f"{method}.nodule.npy"]), allow_pickle=False)
    document = json.loads(files[f"{method}.nodule.json"])
    assert array.dtype == np.float32
    assert np.isfinite(array).all()
    assert len(np.unique(array)) > 1
    assert list(array.shape) in (document["map"]["shape"], document["map"]["shape"][1:])


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_the_most_relevant_point_lies_in_the_nodule(job, method):
    result = next(each for each in job["results"] if each["method"] == method)
    peak = result["map"]["peak"]
    assert Lesions(journey.STUDIES).hit(journey.NODULE, "nodule", tuple(peak))


@pytest.mark.parametrize(
    ("positive", "state", "outcome"),
    [(True, "succeeded", "matched"), (False, "failed", "mismatched")],
)
def test_it_is_told_whether_it_is_the_ais_answer(client, job, positive, state, outcome):
    (said,) = [each for each in job["predictions"] if each["key"] == "nodule"]
    observed = {"of": "nodule", "score": said["logit"], "scale": "logit", "positive": positive}
    body = journey.request(job["study"], "saliency", targets=["nodule"], artifacts=["json"])
    answer = journey.explain(client, body | {"observed": [observed]})
    assert (answer["state"], answer["parity"]["outcome"]) == (state, outcome)


def test_every_map_comes_with_its_checks(job):
    for result in job["results"]:
        said = {each["name"]: each for each in result["checks"]}
        assert said["integrity"]["outcome"] == "pass"
        assert 0 < said["probe_bank"]["values"]["p"] <= 1
        assert said["expected_region"]["outcome"] == "pass"
        assert sum(each["passes"] for each in result["checks"]) == 26
        assert not result["degenerate"]


@pytest.mark.parametrize("method", ["grad_cam", "integrated_gradients", "occlusion"])
def test_a_map_of_the_nodule_is_supported(job, method):
    (result,) = [each for each in job["results"] if each["method"] == method]
    assert result["trust"]["grade"] == "supported"
    assert result["trust"]["certificate"]["outcome"] == "passed"


def test_the_onnx_file_serves_gradients_by_its_interpreted_graph_and_refuses_the_rest(
    stack, client
):
    stack.add_models("chest-phantom-onnx")
    models = client.get("/v1/models").json()["models"]
    onnx = next(each for each in models if each["runtime"] == "onnx")
    study = journey.upload(client)["id"]
    body = journey.request(study, "occlusion", "grad_cam", targets=["nodule"])
    body |= {"model": onnx["name"]}
    job = journey.explain(client, body)
    assert job["state"] == "succeeded"
    assert {each["method"]: each["executed_on"] for each in job["results"]} == {
        "occlusion": "original",
        "grad_cam": "surrogate",
    }
    refused = client.post("/v1/explanations", json=body | {"methods": ["deep_lift"]})
    assert refused.status_code == 422
    assert refused.json()["code"] == "method_not_applicable"
    guided = body | {"methods": ["guided_backprop"]}
    refused = client.post("/v1/explanations", json=guided)
    assert refused.status_code == 422
    assert refused.json()["code"] == "method_uncertified"
    job = journey.explain(client, guided | {"allow_uncertified": True})
    (result,) = job["results"]
    assert "certificate_failed" in result["trust"]["flags"]
