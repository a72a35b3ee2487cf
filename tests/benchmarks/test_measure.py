"""Figures are kept from a quiet machine alone."""

import json

import numpy as np
import pytest

from benchmarks import measure

RESULT = {"seconds": 1.5}


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(measure.os, "cpu_count", lambda: 4)
    monkeypatch.delenv(measure.ANYWAY, raising=False)
    return tmp_path / "results"


@pytest.mark.parametrize(("load", "kept"), [(0.0, True), (2.0, True), (2.1, False), (9.0, False)])
def test_a_result_of_a_busy_machine_is_printed_and_not_kept(
    results, monkeypatch, capsys, load, kept
):
    monkeypatch.setattr(measure, "LOAD_BEFORE", load)
    told = measure.publish("example", RESULT)
    file = results / "example.json"
    assert file.exists() is kept
    if kept:
        assert json.loads(file.read_text()) == RESULT
        assert told == str(file)
    else:
        assert json.loads(capsys.readouterr().out) == RESULT
        assert measure.ANYWAY in told


def test_a_result_is_kept_anyway_when_somebody_says_so(results, monkeypatch):
    monkeypatch.setattr(measure, "LOAD_BEFORE", 9.0)
    monkeypatch.setenv(measure.ANYWAY, "1")
    measure.publish("example", RESULT)
    assert json.loads((results / "example.json").read_text()) == RESULT


def test_the_load_that_counts_is_the_one_before_the_run():
    assert measure.conditions(())["load_before"] == round(measure.LOAD_BEFORE, 2)


def test_a_ratio_is_the_median_of_rounds_with_its_interval():
    subject = np.full(101, 2.0)
    peer = subject * np.linspace(1.0, 3.0, 101)
    found = measure.ratio(peer, subject)
    assert found.median == 2.0
    assert 1.7 < found.low < 2.0 < found.high < 2.3


def test_slow_competitors_get_fewer_rounds_but_enough_for_an_interval(monkeypatch):
    monkeypatch.setattr(measure, "ENOUGH", 0.0)
    runs = []
    spent = measure.rounds({"ours": lambda: runs.append(0)}, 50)
    assert len(spent["ours"]["cpu"]) == measure.LEAST
    assert len(runs) == 2 * (measure.WARM_UP + measure.LEAST)


def test_quick_competitors_get_all_rounds_that_were_asked_for():
    assert len(measure.rounds({"ours": lambda: None}, 50)["ours"]["wall"]) == 50
