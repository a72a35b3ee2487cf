"""Measuring waits for jobs, but not for ever."""

import threading
import time

import pytest

from tests.support.engine import image_for, logits, small_runtime
from workers.certify import turns
from workers.certify.turns import Turns, Unwanted
from workers.passes import Forward, Plan
from workers.rows import Clean
from workers.running import Planned


def plan() -> Plan[str]:
    yield Forward(Clean(image_for()), logits(0))
    return "served"


@pytest.fixture
def hand(monkeypatch):
    monkeypatch.setattr(turns, "LOOK", 0.02)
    monkeypatch.setattr(turns, "QUIET", 0.2)
    return threading.Event()


def served_after(bench, hand, *, stopped=None):
    """Return the seconds until a plan was served."""
    mine = Turns(bench.scheduler, stopped or bench.stopped, hand.is_set)
    began = time.monotonic()
    assert mine.serve(small_runtime(), [Planned(plan(), 1)]) == ("served",)
    return time.monotonic() - began


def test_without_a_job_in_hand_nothing_is_waited_for(bench, hand):
    runtime = small_runtime()
    mine = Turns(bench.scheduler, bench.stopped, hand.is_set)
    began = time.monotonic()
    for _ in range(3):
        mine.serve(runtime, [Planned(plan(), 1)])
    assert time.monotonic() - began < turns.QUIET


def test_jobs_in_hand_end_first_and_some_quiet_follows(bench, hand):
    hand.set()
    threading.Timer(0.5, hand.clear).start()
    assert served_after(bench, hand) > 0.65


def test_under_steady_load_measuring_goes_on_after_a_while(bench, hand, monkeypatch):
    monkeypatch.setattr(turns, "PATIENCE", 0.5)
    hand.set()
    assert 0.45 < served_after(bench, hand) < 5


def test_a_drain_ends_the_waiting(bench, hand):
    hand.set()
    stopped = threading.Event()
    threading.Timer(0.1, stopped.set).start()
    with pytest.raises(Unwanted):
        served_after(bench, hand, stopped=stopped)


def test_a_scheduler_that_takes_nothing_more_is_no_fault(bench, hand):
    bench.scheduler.stop(drain=False)
    with pytest.raises(Unwanted):
        served_after(bench, hand)
