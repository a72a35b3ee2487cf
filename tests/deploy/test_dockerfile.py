"""The two images: what they copy is there, who they run as, how they tell their health."""

from pathlib import Path

import pytest

from service.command import check
from service.command.environment import known
from tests.support import dockerfile

ROOT = Path(__file__).parents[2]
STAGES = dockerfile.read(ROOT / "Dockerfile")
IMAGES = ("api", "worker")


def copied(stage):
    for line in [*STAGES["base"].all("COPY"), *stage.all("COPY")]:
        yield from line.split()[:-1]


def shown_to_the_builder():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return {line[1:] for line in lines if line.startswith("!")}


@pytest.mark.parametrize("name", IMAGES)
def test_what_an_image_copies_is_there_and_not_hidden_from_the_builder(name):
    for source in copied(STAGES[name]):
        assert (ROOT / source).exists(), source
        assert source in shown_to_the_builder()


def test_nothing_but_what_the_images_copy_is_sent_to_the_builder():
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
    assert shown_to_the_builder() == {each for name in IMAGES for each in copied(STAGES[name])}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_nobody_special(name):
    order = [word for word, _ in STAGES[name].instructions]
    assert STAGES[name].all("USER") == ["whylight"]
    assert order.index("USER") < order.index("CMD")
    assert "RUN" not in order[order.index("USER") :]


def test_only_the_worker_installs_a_tensor_library():
    api = " ".join([*STAGES["base"].all("RUN"), *STAGES["api"].all("RUN")])
    assert "torch" not in api.lower()
    assert "worker" not in api
    assert STAGES["worker"].all("ARG") == ['TORCH="torch==2.13.0"']


@pytest.mark.parametrize(("name", "module"), [("api", "api.main"), ("worker", "workers.main")])
def test_an_image_starts_its_program_without_a_shell_that_would_swallow_signals(name, module):
    assert dockerfile.exec_form(STAGES[name].all("CMD")[0]) == ["python", "-m", module]
    assert STAGES[name].all("STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.parametrize("name", IMAGES)
def test_health_is_asked_with_the_house_own_command(name):
    words = dockerfile.exec_form(STAGES[name].all("HEALTHCHECK")[0].partition("CMD ")[2])
    assert words[:4] == ["python", "-m", "service.command.main", "check"]
    assert set(words[4:]) <= set(check.LOOKS)


def test_a_workers_health_is_its_own():
    words = dockerfile.exec_form(STAGES["worker"].all("HEALTHCHECK")[0].partition("CMD ")[2])
    assert words[-1] == "worker"


def test_the_folders_of_the_volumes_belong_to_the_user_of_the_images():
    (line,) = [each for each in STAGES["base"].all("RUN") if "install -d" in each]
    folders = line.partition("-o whylight -g whylight ")[2].split()
    assert folders == ["/var/lib/whylight", "/var/lib/whylight-scratch"]


@pytest.mark.parametrize("name", IMAGES)
def test_every_setting_of_an_image_is_one_that_is_read(name):
    ours = {each for each in dockerfile.environment(STAGES[name]) if each.startswith("WHYLIGHT")}
    assert ours <= known()
