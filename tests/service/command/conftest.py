"""Commands run here know nothing of a service that this machine may have."""

import os

import pytest

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
