"""The page of networks lists what there is, with its layouts."""

import re
from pathlib import Path

from workers.architectures.base import ARCHITECTURES

MODELS = Path(__file__).parents[2] / "docs" / "models"
PAGE = (MODELS / "architectures.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \| .* \| [\d-]+ \| (.*)\|$", PAGE, re.MULTILINE)


def test_every_network_is_listed_with_its_layouts():
    listed = {name: re.findall(r"`(\w+)`", layouts) for name, layouts in ROWS}
    assert listed == {
        name: sorted(each.layouts, reverse=True) for name, each in ARCHITECTURES.items()
    }
