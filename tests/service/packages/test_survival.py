"""``model.yaml`` of survival models: what is said of an event and its times."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from service.domain.target import TimeToEventTarget
from service.entries import entry_of
from service.errors.models import InvalidPackage
from service.errors.requests import InvalidTarget
from service.manifests import read_manifest
from service.targets import check_target
from tests.support.packages import manifest, write_package

EVENT = {"key": "relapse", "label": "Relapse", "unit": "d"}
YEARS = [{"time": 365}, {"time": 730, "threshold": 0.3}]
CODE = {"system": "SCT", "value": "263855007", "meaning": "Relapse phase"}


def fields(folder: Path, count: int, decoding: str = "hazards", **event: Any) -> dict[str, Any]:
    """Return a manifest whose self-tests give `count` numbers."""
    made = manifest(write_package(folder / "package"))
    made["task"] = "survival"
    made["outputs"] = [{"decoding": decoding, "event": EVENT | {"horizons": YEARS} | event}]
    for test in made["selftests"]:
        test["logits"] = [0.0] * count
    return made


def read(made: dict[str, Any]) -> Any:
    return read_manifest(yaml.safe_dump(made).encode())


@pytest.mark.parametrize(
    ("decoding", "count", "event"),
    [
        ("hazards", 2, {}),
        ("masses", 3, {}),
        ("log_hazard", 1, {"unit": None, "horizons": []}),
    ],
)
def test_each_decoding_has_its_own_number_of_outputs(tmp_path, decoding, count, event):
    found = read(fields(tmp_path, count, decoding, code=CODE, **event))
    entry = entry_of(found, "p")
    assert entry.target_kinds == ("time_to_event",)
    assert {each.code["value"] for each in (*entry.classes, *entry.values)} == {CODE["value"]}
    with pytest.raises(InvalidPackage) as refused:
        read(fields(tmp_path / "more", count + 1, decoding, **event))
    assert "this self-test gives" in str(refused.value.facts["errors"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoding": "logits"}, "needs decoding 'log_hazard' or 'hazards' or 'masses'"),
        ({"decoding": "log_hazard"}, "'log_hazard' has none"),
        ({"horizons": [], "unit": None}, "needs its 'horizons'"),
        ({"horizons": [{"time": 9}, {"time": 9}]}, "must be later"),
        ({"horizons": [{"time": 0}]}, "above 0"),
        ({"unit": None}, "their 'unit'"),
        ({"unit": "days"}, "'mo'"),
        (
            {"horizons": [{"time": 9, "not_for_use": "no"}, {"time": 10, "not_for_use": "no"}]},
            "for use",
        ),
    ],
)
def test_an_event_that_is_not_told_well_is_refused(tmp_path, changes, words):
    with pytest.raises(InvalidPackage) as refused:
        read(fields(tmp_path, 2, **changes))
    assert words in str(refused.value.facts["errors"])


def test_an_event_beside_classes_or_of_another_task_is_refused(tmp_path):
    made = fields(tmp_path, 2)
    for change in (
        {"task": "regression"},
        {"outputs": [{"classes": [{"key": "a", "label": "A"}]}]},
    ):
        with pytest.raises(InvalidPackage):
            read(made | change)


def refusal(entry: Any, **target: Any) -> InvalidTarget:
    with pytest.raises(InvalidTarget) as refused:
        check_target(
            TimeToEventTarget.model_validate({"kind": "time_to_event"} | target), "/t", entry
        )
    return refused.value


def test_a_time_that_the_model_does_not_tell_of_is_refused_at_the_door(tmp_path):
    entry = entry_of(read(fields(tmp_path, 2)), "p")
    check_target(TimeToEventTarget(kind="time_to_event", horizon=730), "/t", entry)
    for asked, pointer in (({"horizon": 366}, "/t/horizon"), ({"of": "risk"}, "/t/of")):
        refused = refusal(entry, **asked)
        assert refused.pointer == pointer
        assert (refused.facts["horizons"], refused.facts["unit"]) == ([365, 730], "d")
    one = fields(tmp_path / "one", 1, "log_hazard", unit=None, horizons=[])
    refused = refusal(entry_of(read(one), "p"), horizon=365)
    assert (refused.pointer, refused.facts["of"]) == ("/t/horizon", ["risk"])


def test_default_targets_are_held_against_the_times(tmp_path):
    made = fields(tmp_path, 2)
    made["explain"] = {"default_targets": [{"kind": "time_to_event", "horizon": 90}]}
    with pytest.raises(InvalidPackage) as refused:
        read(made)
    assert refused.value.facts["errors"][0]["pointer"] == "/explain/default_targets/0/horizon"


@pytest.mark.parametrize("both", [{}, {"of": "risk", "horizon": 365}, {"horizon": -1}])
def test_a_target_names_a_risk_or_a_time(both):
    with pytest.raises(ValidationError):
        TimeToEventTarget.model_validate({"kind": "time_to_event"} | both)
