"""Commands run here know nothing of a service that this machine may have."""

import os

import pytest
import yaml

from service.command import reproduce
from service.command.main import main
from service.settings import PREFIX
from tests.support.reproduced import MAPS, THEN, Gateway, explained


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in [each for each in os.environ if each.startswith(PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def whylight(capsys):
    """Run the command; return its exit status, what it printed, and what it complained of."""

    def run(*words):
        capsys.readouterr()
        status = main([str(each) for each in words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def imported(whylight, tmp_path):
    """Import something; return the draft and what is still to be said, by pointer."""

    def run(source):
        status, out, err = whylight("models", "import", source, tmp_path / "begun")
        assert (status, err) == (3, "")
        fields = yaml.safe_load((tmp_path / "begun" / "model.yaml").read_text())
        lines = [each.strip().split(": ", 1) for each in out.splitlines() if each.startswith("  /")]
        return fields, dict(lines)

    return run


@pytest.fixture
def gateway(monkeypatch):
    gateway = Gateway()
    monkeypatch.setattr(reproduce, "Client", gateway)
    monkeypatch.setenv("WHYLIGHT_API_KEY", "wl_live_x_y")
    return gateway


@pytest.fixture
def keep(tmp_path):
    """Lay an explanation into a folder; returns the path of its document."""

    def lay(made, files=True):
        (tmp_path / "job.json").write_bytes(made.document)
        for name, data in made.files.items() if files else ():
            (tmp_path / name).write_bytes(data)
        return tmp_path / "job.json"

    return lay


@pytest.fixture
def file(keep):
    return keep(explained(THEN, MAPS))
