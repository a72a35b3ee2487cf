"""Commands run here know nothing of a service that this machine may have."""

import os

import pytest
import yaml

from service.command.main import main
from service.settings import PREFIX


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
