"""The README's commands, run as they stand there; its links lead somewhere."""

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pydicom
import pytest

from service.command import packages
from tests.support.redis_server import any_server
from tests.support.up import up

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def walk_through():
    return "\n".join(re.findall(r"^```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))


def need_curl():
    if shutil.which("curl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no curl")
        pytest.skip("no curl")


@pytest.mark.e2e
@pytest.mark.redis
def test_the_walk_through_works_as_it_is_written(tmp_path):
    need_curl()
    any_server()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with up(models=None) as running:
        with running.client() as client:
            offered = {
                each["name"]: each["state"] for each in client.get("/v1/models").json()["models"]
            }
        assert offered == {each.name: "ready" for each in packages.bundled()}
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", walk_through()],
            cwd=tmp_path,
            env=os.environ | {"WHYLIGHT_URL": running.url, "WHYLIGHT_API_KEY": running.key},
            check=True,
            timeout=120,
        )
    made = pydicom.dcmread(tmp_path / "grad_cam.nodule.dcm")
    source = pydicom.dcmread(ROOT / "examples/studies/chest/nodule.dcm", stop_before_pixels=True)
    assert made.StudyInstanceUID == source.StudyInstanceUID
    with zipfile.ZipFile(tmp_path / "explanation.zip") as archive:
        assert {"occlusion.nodule.png", "grad_cam.nodule.npy"} <= set(archive.namelist())


def test_the_two_commands_come_first():
    first = re.search(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert first is not None
    targets = re.findall(r"^make (\w+)", first.group(1), re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    for each in targets:
        assert re.search(rf"^{each}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda each: str(each.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    assert [each for each in links if not (page.parent / each).exists()] == []
