"""The page on targets shows what can be asked for, and names the methods that it must."""

import json
import re
from pathlib import Path

from pydantic import TypeAdapter

from service.domain.target import KINDS, Target
from workers.methods.base import METHODS
from workers.targets.classes import SLOPE

PAGE = (Path(__file__).parents[2] / "docs" / "models" / "targets.md").read_text()
TARGETS = TypeAdapter(tuple[Target, ...])
DEEP_LIFT = {"deep_lift", "deep_lift_shap"}
"""Of an extra, and so not always there."""


def test_every_kind_is_shown_as_it_can_be_asked_for():
    shown = map(json.loads, re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
    asked = TARGETS.validate_python(list(shown))
    assert {each.kind for each in asked} == {
        *(kind for kinds in KINDS.values() for kind in kinds),
        "view",
        "instance",
    }


def test_the_methods_that_are_right_of_weighted_sums_alone_are_named():
    (sentence,) = re.findall(
        r"\n\n(`class_activation_map`.*?) are right of scores", PAGE, re.DOTALL
    )
    named = set(re.findall(r"`(\w+)`", sentence))
    assert named - DEEP_LIFT == {name for name in METHODS if METHODS[name].linear} - DEEP_LIFT


def test_when_a_probability_warns_is_told():
    assert f"`p (1 - p)` is under {SLOPE}" in PAGE
