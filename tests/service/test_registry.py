"""A family of parts is whole to whoever asks, whichever thread asks first."""

import importlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

BASE = """
from service.registry import Registry
PARTS = Registry("slow_parts", "slow.parts")
"""
PART = """
import time
from slow_base import PARTS
time.sleep(0.2)
class Part: ...
PARTS.register("{name}")(Part)
"""


def test_a_part_that_is_imported_just_now_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What loads models and what publishes the catalog both ask first, each in its thread."""
    (tmp_path / "slow_base.py").write_text(BASE)
    (folder := tmp_path / "slow_parts").mkdir()
    (folder / "__init__.py").touch()
    for name in ("one", "other"):
        (folder / f"{name}.py").write_text(PART.format(name=name))
    monkeypatch.syspath_prepend(tmp_path)
    parts = importlib.import_module("slow_base").PARTS
    with ThreadPoolExecutor(4) as threads:
        seen = [threads.submit(list, parts) for _ in range(4)]
        assert [each.result() for each in seen] == [["one", "other"]] * 4
