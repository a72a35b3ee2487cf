"""The gateway and the command need nothing of what only workers install."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKERS_ONLY = (
    "imagecodecs",
    "jpeg_ls",
    "libjpeg",
    "onnx",
    "onnxruntime",
    "openjpeg",
    "PIL",
    "pylibjpeg",
    "rle",
    "safetensors",
    "torch",
)


def test_the_list_covers_everything_that_workers_install():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]["worker"]
    assert len(WORKERS_ONLY) == len(extra)


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
