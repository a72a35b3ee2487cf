"""The gateway and the command need nothing of what only workers install."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def worker_modules() -> tuple[str, ...]:
    """Modules of the distributions that only the worker extra names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = {
        re.match(r"[\w.-]+", each)[0].lower() for each in project["optional-dependencies"]["worker"]
    }
    return tuple(
        sorted(
            module
            for module, distributions in packages_distributions().items()
            if extra & {each.lower() for each in distributions}
        )
    )


WORKERS_ONLY = worker_modules()


def test_the_workers_bring_the_tensor_libraries():
    assert {"torch", "onnxruntime", "PIL"} <= set(WORKERS_ONLY)


@pytest.mark.parametrize(
    "module",
    [
        "api.main",
        "service.command.main",
        "service.command.up",
        "service.command.check",
        "service.command.keys",
        "service.command.models",
    ],
)
def test_a_program_of_the_small_image_loads_without_them(module):
    block = f"import sys; sys.modules.update(dict.fromkeys({WORKERS_ONLY!r}))"
    subprocess.run(
        [sys.executable, "-c", f"{block}; import {module}"], check=True, cwd=ROOT, timeout=60
    )
