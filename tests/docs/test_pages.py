"""What the pages say of the code is there: paths, metrics, commands, scopes."""

import re
from pathlib import Path

import pytest

from service.command.main import COMMANDS, _parser
from service.keys import Scope
from tests.support.metrics_table import table

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
PATHS = sorted(set(re.findall(r"`((?:service|api|workers|tests)/[\w/.]+)`", ARCHITECTURE)))
LINES = re.findall(r"^whylight (.+?)\s*(?:#.*)?$", OPERATIONS, re.MULTILINE)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_that_the_architecture_names_is_there(path):
    assert (ROOT / path).exists()


def test_the_table_of_metrics_is_the_one_that_the_code_gives():
    assert table() in OPERATIONS, "run python -m tests.support.metrics_table"


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_page_is_one_that_the_program_understands(line):
    words = line.replace('"reading room"', "room").split()
    options = _parser(words[0]).parse_args(words)
    assert words[0] in COMMANDS
    assert callable(options.run)


def test_every_scope_is_named():
    assert [each for each in Scope if f"`{each}`" not in OPERATIONS] == []
