"""A case says something only if its maps are right and its control holds; bars come after."""

import json
import time

import pytest

from benchmarks import contest, measure
from benchmarks.contest import OURS, Case, Unmet, fewest, hold, quickest
from benchmarks.measure import INVALID, MISSED

PEER = "peer"


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(measure, "LOAD_BEFORE", 0.0)
    monkeypatch.setattr(measure, "load_of_others", lambda: 0.0)
    return tmp_path


@pytest.fixture
def steady(monkeypatch):
    """Let no noise of the machine decide whether the control holds."""
    monkeypatch.setattr(contest, "within", lambda _: True)


def spin(milliseconds: float) -> None:
    until = time.process_time() + milliseconds / 1000
    while time.process_time() < until:
        pass


def case(*, bar: float = 1.5, **changed) -> Case:
    runs = {OURS: lambda: spin(1), PEER: lambda: spin(3)}
    return Case(
        **{"name": "a case", "runs": runs, "bars": {PEER: bar}, "errors": {OURS: 0.0}} | changed
    )


def published(folder) -> dict:
    return json.loads((folder / "example.json").read_text())["cases"]


@pytest.mark.usefixtures("steady")
def test_a_bar_that_is_held_and_one_that_is_missed_end_differently(quiet, capsys):
    assert hold("example", (), [case()], None) == 0
    assert hold("example", (), [case(bar=30.0)], None) == MISSED
    assert f"bars missed: a case: {PEER}" in capsys.readouterr().out
    found = published(quiet)["a case"]
    assert found["valid"]
    assert found["rounds"] == measure.ROUNDS


@pytest.mark.parametrize(
    "wrong",
    [
        case(errors={OURS: 1e-3}),
        case(errors={OURS: float("nan")}),
        case(gates={"map": (0.2, 0.1)}),
        Unmet("a case", "samples"),
    ],
)
@pytest.mark.usefixtures("steady")
def test_a_case_that_says_nothing_is_published_as_such_and_the_next_goes_on(quiet, wrong):
    assert hold("example", (), [wrong, case(name="next")], None) == INVALID
    found = published(quiet)
    assert not found["a case"]["valid"]
    assert found["a case"]["faults"]
    assert "ratios" not in found["a case"]
    assert found["next"]["valid"]


def test_a_case_whose_control_is_off_is_not_valid(quiet, monkeypatch):
    monkeypatch.setattr(contest, "within", lambda _: False)
    assert hold("example", (), [case()], None) == INVALID
    assert not published(quiet)["a case"]["valid"]


@pytest.mark.usefixtures("steady")
def test_a_trial_of_a_few_rounds_is_neither_valid_nor_kept(quiet):
    assert hold("example", (), [case()], 1) == INVALID
    assert not list(quiet.iterdir())


def test_the_first_size_that_meets_the_error_is_found():
    assert fewest((4, 8, 16, 32), lambda n: 1 / n, 0.1) == (16, 1 / 16)
    assert fewest((4, 8), lambda n: 1 / n, 0.1) is None


def test_the_quickest_batch_is_found():
    assert quickest(lambda batch: spin(abs(batch - 16))) == 16
