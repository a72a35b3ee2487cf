"""``whylight reproduce`` on a real stack: what it fetched it computes again, to the byte."""

import json
import shutil

import pytest

from tests.support import journey

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

METHODS = ("saliency", "grad_cam", {"name": "integrated_gradients", "parameters": {"steps": 8}})


@pytest.fixture(scope="module")
def folder(client, tmp_path_factory):
    """The files of an explanation as a user keeps them."""
    folder = tmp_path_factory.mktemp("kept")
    body = journey.request(journey.upload(client)["id"], *METHODS, artifacts=["npy", "json"])
    base = f"/v1/explanations/{journey.explain(client, body)['id']}/artifacts"
    for each in client.get(base).json()["artifacts"]:
        (folder / each["name"]).write_bytes(client.get(f"{base}/{each['name']}").content)
    return folder


@pytest.fixture
def reproduce(stack):
    """Run the command beside the stack; return its exit status and all that it said."""

    def run(*words):
        home = ("--home", str(stack.home))
        answer = stack.command(
            "reproduce", *[str(each) for each in words], *home, WHYLIGHT_API_KEY=stack.key
        )
        return answer.returncode, answer.stdout + answer.stderr

    return run


def test_the_maps_come_out_again(reproduce, folder):
    status, said = reproduce(folder / "job.json")
    assert status == 0, said
    maps = len(list(folder.glob("*.npy")))
    assert maps >= len(METHODS)
    assert f"{maps} of {maps} maps" in said


def test_the_image_that_was_removed_can_be_named(reproduce, client, folder):
    study = json.loads((folder / "job.json").read_bytes())["request"]["study"]
    assert client.delete(f"/v1/studies/{study}").status_code == 200
    status, said = reproduce(folder / "job.json")
    assert (status, "--study" in said) == (1, True)
    other = journey.STUDIES / "effusion.dcm"
    assert "not the image" in reproduce(folder / "job.json", "--study", other)[1]
    status, said = reproduce(folder / "job.json", "--study", journey.NODULE)
    assert status == 0, said


def test_an_edited_document_computes_nothing(reproduce, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "kept")
    document = json.loads((folder / "job.json").read_bytes())
    document["predictions"][0]["probability"] = 0.01
    (tmp_path / "kept" / "job.json").write_text(json.dumps(document))
    status, said = reproduce(tmp_path / "kept" / "job.json")
    assert (status, "seal" in said) == (1, True)
