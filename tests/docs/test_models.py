"""The pages on models: networks with their layouts, the schema of the manifest."""

import json
import re
from pathlib import Path

from service.manifests import manifest_schema
from workers.architectures.base import ARCHITECTURES

MODELS = Path(__file__).parents[2] / "docs" / "models"
PAGE = (MODELS / "architectures.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \| .* \| [\d-]+ \| (.*)\|$", PAGE, re.MULTILINE)


def test_every_network_is_listed_with_its_layouts():
    listed = {name: re.findall(r"`(\w+)`", layouts) for name, layouts in ROWS}
    assert listed == {
        name: sorted(each.layouts, reverse=True) for name, each in ARCHITECTURES.items()
    }


def test_the_schema_that_is_published_is_the_one_that_packages_are_held_against():
    published = json.loads((MODELS / "model.schema.json").read_text())
    assert published == manifest_schema(), "run python -m tests.support.manifest_schema"
