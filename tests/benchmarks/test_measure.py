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
    monkeypatch.setattr(measure, "LOAD_BEFORE", 0.0)
    monkeypatch.setattr(measure.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
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


@pytest.mark.parametrize(("load", "kept"), [(2.9, True), (3.2, False)])
def test_what_others_do_by_the_end_counts_and_the_run_itself_does_not(
    results, monkeypatch, load, kept
):
    an_hour_ago = measure.time.time() - 3600
    monkeypatch.setattr(measure, "BEGAN", an_hour_ago)
    monkeypatch.setattr(measure.os, "getloadavg", lambda: (load, 0.0, 0.0))
    measure.publish("example", RESULT)
    assert (results / "example.json").exists() is kept


def test_a_run_that_has_just_begun_is_hardly_in_the_load(monkeypatch):
    monkeypatch.setattr(measure, "BEGAN", measure.time.time())
    monkeypatch.setattr(measure.os, "getloadavg", lambda: (2.5, 0.0, 0.0))
    assert measure.load_of_others() == pytest.approx(2.5, abs=0.05)


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
    assert found.rounds == 101


def test_slow_competitors_get_fewer_rounds_but_enough_for_an_interval(monkeypatch):
    monkeypatch.setattr(measure, "ENOUGH", 0.0)
    runs = []
    spent = measure.rounds({"ours": lambda: runs.append(0)}, 50)
    assert len(spent["ours"]["cpu"]) == measure.LEAST
    assert len(runs) == 2 * (measure.WARM_UP + measure.LEAST)


def test_quick_competitors_get_all_rounds_that_were_asked_for():
    assert len(measure.rounds({"ours": lambda: None}, 50)["ours"]["wall"]) == 50


@pytest.mark.parametrize(
    ("rounds", "seconds", "enough"),
    [(9, 0.001, True), (8, 0.001, False), (3, 1.6, False), (3, 1.7, True)],
)
def test_a_run_is_complete_after_nine_rounds_or_twenty_seconds(rounds, seconds, enough):
    spent = {name: {"wall": [seconds] * rounds} for name in ("ours", "peer")}
    assert measure.complete(spent) is enough


def test_the_conditions_tell_the_processors_units_for_bfloat16(monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: A processor\n"
        "flags\t\t: fpu sse2 avx2 avx512f avx512_bf16 amx_bf16 amx_tile hypervisor\n"
        "bugs\t\t: spectre_v1\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    )
    monkeypatch.setattr(measure, "CPUINFO", cpuinfo)
    told = measure.conditions(["torch"])
    assert told["cpu_flags"] == ["amx_bf16", "amx_tile", "avx2", "avx512_bf16", "avx512f"]
    assert told["cpu"] == "A processor"
    json.dumps(told)


def test_arm_names_its_flags_otherwise_and_none_are_no_error():
    assert measure.cpu_flags("processor : 0\nFeatures : fp asimd sve bf16 aes\n") == [
        "asimd",
        "bf16",
        "sve",
    ]
    assert measure.cpu_flags("processor : 0\n") == []
