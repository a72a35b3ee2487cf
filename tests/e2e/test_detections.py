"""A detector over HTTP: its boxes are listed, one is explained, and what cannot be is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from examples.planted.dicom import plate
from examples.planted.pictures import shapes
from tests.support import journey
from tests.support.phantom_dicom import encoded

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

PICTURE = shapes(4_774, {"cyst": 2, "stone": 1})
MODEL = {"model": "detector-phantom"}


@pytest.fixture(scope="module", autouse=True)
def _models(stack):
    stack.add_models("detector-phantom")


@pytest.fixture(scope="module")
def study(client):
    content = encoded(plate(PICTURE, "e2e", "KIDNEY"))
    headers = {"Content-Type": "application/dicom"}
    answer = client.post("/v1/studies", content=content, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_a_box_is_listed_explained_and_framed(client, study):
    targets = [{"kind": "detection", "of": "cyst", "number": 1}]
    body = journey.request(study, "layer_cam", **MODEL, targets=targets, artifacts=["png"])
    job = journey.explain(client, body)
    assert job["state"] == "succeeded", job["failure"]
    (listed,) = [each for each in job["predictions"] if each["key"] == "cyst"]
    (result,) = job["results"]
    box = listed["detections"][1]["box"]
    assert result["target"]["box"] == box
    planted = [each for shape, each in PICTURE.boxes if shape == "cyst"]
    assert min(np.abs(np.subtract(box, each)).max() for each in planted) <= 3
    (artifact,) = result["artifacts"]
    answer = client.get(f"/v1/explanations/{job['id']}/artifacts/{artifact['name']}")
    image = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))
    top, left, _, right = map(round, box)
    assert (image[top, left:right] == 255).all()


@pytest.mark.parametrize(
    ("asked", "code", "pointer"),
    [
        ({"targets": ["cyst"]}, "invalid_target", "/targets/0/kind"),
        (
            {"targets": [{"kind": "detection", "of": "nodule"}]},
            "invalid_target",
            "/targets/0/of",
        ),
        (
            {"targets": [{"kind": "detection", "of": "cyst", "box": [9, 9, 4, 12]}]},
            "invalid_target",
            "/targets/0/box",
        ),
        (
            {"targets": [{"kind": "detection", "of": "cyst", "box": [1, 9, 9, 2, 20, 20]}]},
            "invalid_target",
            "/targets/0/box",
        ),
        ({"methods": ["grad_cam"]}, "method_not_applicable", "/methods/0/name"),
    ],
)
def test_what_a_detector_cannot_be_asked_is_refused_with_what_it_can(
    client, study, asked, code, pointer
):
    body = journey.request(study, "layer_cam", **MODEL) | asked
    answer = client.post("/v1/explanations", json=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, code)
    assert problem["errors"][0]["pointer"] == pointer
    if pointer.endswith("kind"):
        assert problem["facts"]["kinds"] == ["detection"]
    if code == "method_not_applicable":
        assert "layer_cam" in problem["facts"]["methods"]
