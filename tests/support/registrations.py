"""The pages that lead through registrations, read as a person does: section by section."""

import json
import re
import shlex
from pathlib import Path
from typing import Any, Final

import yaml

from service.command.main import main

MODELS: Final = Path(__file__).parents[2] / "docs" / "models"
PAGE, DETECTION, VOLUMES = (
    (MODELS / name).read_text() for name in ("index.md", "detection.md", "volumes.md")
)
SECTIONS: Final = {
    title: text
    for part in re.split(r"^## ", PAGE + DETECTION + VOLUMES, flags=re.MULTILINE)
    for title, _, text in [part.partition("\n")]
}


def blocks(title: str, language: str) -> list[str]:
    """Return a section's blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[title], re.DOTALL)


def commands(title: str) -> list[list[str]]:
    """Return the lines of a section's shell blocks that are commands of ours."""
    lines = [line for block in blocks(title, "sh") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines]


def run(title: str, verb: str) -> int:
    """Run a section's lines of one verb, one after the other; return the last exit status."""
    return [main(words) for words in commands(title) if words[1] == verb][-1]


def said(title: str) -> dict[str, Any]:
    """Return what a section has a person say in ``model.yaml``."""
    (block,) = blocks(title, "yaml")
    fields: dict[str, Any] = yaml.safe_load(block)
    return fields


def asked(title: str) -> dict[str, Any]:
    """Return the request for an explanation with which a section ends."""
    (block,) = blocks(title, "json")
    body: dict[str, Any] = json.loads(block)
    return body
