"""Whoever imports a part gets that part alone: packages import and re-export nothing."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(
    each.relative_to(ROOT).as_posix()
    for house in ("service", "api", "workers")
    for each in (ROOT / house).rglob("__init__.py")
)


def test_the_packages_are_found():
    assert {"service/__init__.py", "api/__init__.py", "workers/__init__.py"} < set(PACKAGES)


@pytest.mark.parametrize("path", PACKAGES)
def test_a_package_is_its_docstring_and_nothing_else(path):
    (statement,) = ast.parse((ROOT / path).read_text()).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Constant)
