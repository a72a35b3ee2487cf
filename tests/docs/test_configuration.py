"""The documentation's settings are those of the code, and its defaults are valid values."""

import re
from pathlib import Path

import pytest

from service.settings import Settings
from tests.support.settings_table import table

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
ROWS = re.findall(r"^\| `(WHYLIGHT_\w+)` \| `([^`]*)` \| (.*) \|$", PAGE, re.MULTILINE)


def test_the_table_is_the_one_that_the_code_gives():
    assert table() in PAGE, "run python -m tests.support.settings_table and put its output there"


def test_every_setting_says_what_it_does():
    assert all(meaning for _, _, meaning in ROWS)


@pytest.mark.parametrize(("name", "default"), [(name, default) for name, default, _ in ROWS])
def test_a_default_as_written_sets_the_default(name, default, monkeypatch):
    monkeypatch.setenv(name, default)
    assert Settings() == Settings.model_construct()
