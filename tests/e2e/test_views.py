"""A model of four views over HTTP: one study in, a map of each view out, and what is refused."""

import io
import json
import re
import zipfile
from pathlib import Path

import pytest

from examples.breasts.dicom import study as views_of
from examples.breasts.drawing import VIEWS, draw
from tests.support import journey
from tests.support.phantom_dicom import encoded

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

DRAWING = draw(4_774, ["l_cc", "l_mlo"])
MODEL = {"model": "four-view-phantom"}
PAGE = (Path(__file__).parents[2] / "docs" / "models" / "inputs.md").read_text()


def send(client, name, *, without=(), also=()):
    views = views_of(DRAWING, name)
    objects = [each for view, each in views.items() if view not in without]
    for view in also:
        twin = views_of(DRAWING, name)[view]
        twin.SOPInstanceUID += ".9"
        objects.append(twin)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, each in enumerate(objects):
            archive.writestr(f"{number}.dcm", encoded(each))
    headers = {"Content-Type": "application/zip"}
    answer = client.post("/v1/studies", content=packed.getvalue(), headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


@pytest.fixture(scope="module", autouse=True)
def _models(stack):
    stack.add_models("four-view-phantom")


@pytest.fixture(scope="module")
def study(client):
    return send(client, "http")


def test_a_study_gives_a_picture_of_each_view_in_one_scale(client, study):
    """The request is the page's."""
    asked, _ = re.findall(r"```json\n(.*?)```", PAGE.split("## Several views")[1], re.DOTALL)
    job = journey.explain(client, json.loads(asked) | {"study": study})
    assert job["state"] == "succeeded", job["failure"]
    assert list(job["request"]["views"]) == list(VIEWS)
    assert [each["view"]["key"] for each in job["results"]] == list(VIEWS)
    shares = {each["view"]["key"]: each["view"]["share"] for each in job["results"]}
    assert shares["l_cc"] + shares["l_mlo"] > 0.8
    assert len({each["view"]["full"] for each in job["results"]}) == 1
    for each in job["results"]:
        assert {file["format"] for file in each["artifacts"]} == {"dicom_sc", "json"}
        for file in each["artifacts"]:
            assert f"left-{each['view']['key']}" in file["name"]
            assert client.get(file["href"]).status_code == 200


def test_a_study_lists_what_its_images_say_of_their_views(client, study):
    listed = client.get(f"/v1/studies/{study}").json()["instances"]
    found = {(each["laterality"], each["view_position"]) for each in listed}
    assert found == {("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO")}


@pytest.mark.parametrize(
    ("asked", "code", "pointer"),
    [
        (
            {"targets": [{"kind": "view", "of": "left", "view": "l_ml"}]},
            "invalid_target",
            "/targets/0/view",
        ),
        (
            {"targets": [{"kind": "view", "of": "middle", "view": "l_cc"}]},
            "invalid_target",
            "/targets/0/of",
        ),
        ({"targets": [{"kind": "view", "of": "left"}]}, "invalid_target", "/targets/0"),
        ({"targets": [{"kind": "detection", "of": "left"}]}, "invalid_target", "/targets/0/kind"),
        ({"methods": ["attention_rollout"]}, "method_not_applicable", "/methods/0/name"),
        ({"instance": "in_0001"}, "invalid_request", "/instance"),
        ({"views": {"l_ml": "in_0001"}}, "invalid_request", "/views/l_ml"),
        (
            {"annotations": [{"of": "left", "box": [1, 1, 9, 9]}]},
            "invalid_request",
            "/annotations/0/view",
        ),
        (
            {"annotations": [{"of": "left", "view": "l_cc", "box": [1, 1, 9, 65]}]},
            "invalid_request",
            "/annotations/0/box",
        ),
        (
            {"model": "chest-phantom", "targets": [{"kind": "view", "of": "nodule", "view": "pa"}]},
            "invalid_target",
            "/targets/0/kind",
        ),
        ({"model": "chest-phantom", "views": {"pa": "in_0001"}}, "invalid_request", "/views"),
        ({"model": "chest-phantom", "instances": ["in_0001"]}, "invalid_request", "/instances"),
        ({"instances": ["in_0001"]}, "invalid_request", "/instances"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_can(client, study, asked, code, pointer):
    body = journey.request(study, "layer_cam", **MODEL, targets=["top1"]) | asked
    answer = client.post("/v1/explanations", json=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, code), problem
    assert problem["errors"][0]["pointer"] == pointer
    if pointer.endswith("kind"):
        kinds = ["class", "contrast"]
        assert problem["facts"]["kinds"] == (kinds if "model" in asked else [*kinds, "view"])


def test_a_study_without_one_of_the_views_is_refused_by_its_name(client):
    lacking = send(client, "lacking", without=["r_mlo"])
    answer = client.post("/v1/explanations", json=journey.request(lacking, "layer_cam", **MODEL))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "missing_view")
    assert problem["facts"]["missing"] == ["r_mlo"]
    assert "2.25" not in answer.text


def test_two_images_of_one_view_are_refused_until_one_is_named(client):
    double = send(client, "double", also=["r_cc"])
    body = journey.request(double, "layer_cam", **MODEL)
    answer = client.post("/v1/explanations", json=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "ambiguous_study")
    assert problem["facts"]["view"] == "r_cc"
    assert problem["errors"][0]["pointer"] == "/views/r_cc"
    assert "2.25" not in answer.text
    chosen = body | {"views": {"r_cc": problem["facts"]["instances"][1]}}
    answer = client.post("/v1/explanations:validate", json=chosen)
    assert answer.json()["request"]["views"]["r_cc"] == problem["facts"]["instances"][1]


def test_the_maps_of_every_view_come_out_again(client, stack, study, tmp_path):
    body = journey.request(study, "layer_cam", **MODEL, targets=["left"], artifacts=["npy"])
    base = f"/v1/explanations/{journey.explain(client, body)['id']}/artifacts"
    for each in client.get(base).json()["artifacts"]:
        (tmp_path / each["name"]).write_bytes(client.get(f"{base}/{each['name']}").content)

    def reproduce(*words):
        asked = ("reproduce", str(tmp_path / "job.json"), *words, "--home", str(stack.home))
        answer = stack.command(*asked, WHYLIGHT_API_KEY=stack.key)
        return answer.returncode, answer.stdout + answer.stderr

    status, said = reproduce()
    assert status == 0, said
    assert "4 of 4 maps" in said
    status, said = reproduce("--study", str(journey.NODULE))
    assert (status, "4 of the 4 objects" in said) == (1, True)
