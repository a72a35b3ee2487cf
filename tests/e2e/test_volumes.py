"""A CT series sent as an archive comes back explained, slice by slice in its own place."""

import io
import zipfile

import numpy as np
import pydicom
import pytest

from examples.spheres.dicom import series
from examples.spheres.phantom import SPACING, draw
from tests.support import journey
from tests.support.phantom_dicom import encoded, image

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

PHANTOM = draw(4243, ["hollow"])


@pytest.fixture(scope="module", autouse=True)
def _models(stack):
    stack.add_models("sphere-phantom")


@pytest.fixture(scope="module")
def study(client):
    slices, radiograph, buffer = series(PHANTOM, "e2e"), image(), io.BytesIO()
    for element in ("StudyInstanceUID", "PatientID", "PatientName"):
        setattr(radiograph, element, slices[0][element].value)
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("radiograph", encoded(radiograph))
        for number, each in enumerate(slices):
            archive.writestr(f"slice{number}", encoded(each))
    answer = client.post(
        "/v1/studies", content=buffer.getvalue(), headers={"Content-Type": "application/zip"}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_series_is_named_in_its_study_and_explained_by_a_model_for_volumes(client, study):
    assert [each["series"] for each in study["instances"]] == ["se_0001", *["se_0002"] * 24]
    assert {each["plane"] for each in study["instances"][1:]} == {"axial"}
    body = journey.request(
        study["id"], "grad_cam", model="sphere-phantom", targets=["hollow"], artifacts=["dicom_sc"]
    )
    job = journey.explain(client, body)
    assert job["state"] == "succeeded", job["failure"]
    assert job["subject"]["volume"]["spacing"] == pytest.approx(SPACING)
    assert [each["instance"] for each in job["subject"]["left_out"]] == ["in_0001"]
    (result,) = job["results"]
    (artifact,) = result["artifacts"]
    answer = client.get(f"/v1/explanations/{job['id']}/artifacts/{artifact['name']}")
    made = pydicom.dcmread(io.BytesIO(answer.content))
    assert made.StudyInstanceUID == series(PHANTOM, "e2e")[0].StudyInstanceUID
    (sphere,) = PHANTOM.spheres
    deep = np.array(result["map"]["peak"])[0] - (24 - 1) / 2
    assert abs(deep * SPACING[0] - sphere.center[0]) <= sphere.radius + 9


def test_a_radiograph_alone_is_no_volume(client, study):
    body = journey.request(study["id"], model="sphere-phantom", instance="in_0001")
    answer = client.post("/v1/explanations", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "not_accepted_by_model")
    body = journey.request(study["id"], model="sphere-phantom", frame=2)
    answer = client.post("/v1/explanations", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/frame")
