"""The risk file holds together: hazards have controls, controls have tests, tests exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "risk.md").read_text()


def rows(letter, columns):
    """Return the cells of every table row whose first cell is an id of `letter`."""
    lines = re.findall(rf"^\| ({letter}\d\d \|.*) \|$", PAGE, re.MULTILINE)
    cells = [line.split(" | ") for line in lines]
    assert {len(each) for each in cells} == {columns}
    return cells


HAZARDS = rows("H", 7)
CONTROLS = rows("C", 3)
TESTS = [(each[0], ref) for each in CONTROLS for ref in re.findall(r"`([^`]+)`", each[2])]


@cache
def functions(path):
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("control", "ref"), TESTS)
def test_every_test_that_a_control_names_exists(control, ref):
    path, _, name = ref.partition("::")
    assert path.startswith("tests/")
    assert name.startswith("test_")
    assert name in functions(path), control


def test_every_control_names_a_test():
    assert {control for control, _ in TESTS} == {each[0] for each in CONTROLS}


def test_every_hazard_has_controls_that_exist_and_every_control_a_hazard():
    used = [set(each[4].split()) for each in HAZARDS]
    assert all(used)
    assert set().union(*used) == {each[0] for each in CONTROLS}


@pytest.mark.parametrize("table", [HAZARDS, CONTROLS], ids=["hazards", "controls"])
def test_ids_are_unique_and_in_order(table):
    ids = [each[0] for each in table]
    assert ids == sorted(set(ids))


def risk(cell):
    severity, likelihood = map(int, cell.split(" x "))
    assert {severity, likelihood} <= {1, 2, 3}
    return severity * likelihood


@pytest.mark.parametrize("hazard", HAZARDS, ids=[each[0] for each in HAZARDS])
def test_control_lowers_or_keeps_a_risk_and_what_stays_high_is_named(hazard):
    before, after = risk(hazard[2]), risk(hazard[5])
    assert after <= before
    remains = PAGE.partition("## What remains")[2].partition("\n## ")[0]
    assert (after >= 6) == (hazard[0] in remains)


@pytest.mark.parametrize("hazard", HAZARDS, ids=[each[0] for each in HAZARDS])
def test_a_hazard_leads_to_a_harm_and_gives_its_reasons(hazard):
    assert " → " in hazard[1]
    assert hazard[3].endswith(".")
    assert hazard[6].endswith(".")
