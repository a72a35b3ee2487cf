import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from service.errors.base import WhylightError
from service.errors.jobs import SlotDied, StageTimeout
from service.errors.studies import UndecodablePixels
from workers.slots import SlotBug, Slots

ROOM = 2 << 30


@pytest.fixture(scope="module")
def slots():
    with Slots(2, address_space_bytes=ROOM, tasks="tests.support.slot_tasks") as slots:
        yield slots


def test_a_task_answers_with_its_result(slots):
    assert slots.run("echo", {"number": 7}, 20)["number"] == 7


def test_a_segfault_fails_the_call_that_met_it_and_no_other(slots):
    with ThreadPoolExecutor(4) as pool:
        crash = pool.submit(slots.run, "segfault", {}, 20, lost=UndecodablePixels)
        others = [pool.submit(slots.run, "doze", {"seconds": 0.1}, 20) for _ in range(6)]
        with pytest.raises(UndecodablePixels, match="crash"):
            crash.result()
        assert all(other.result()["pid"] for other in others)


def test_a_hung_task_is_ended_in_time_and_its_slot_works_again():
    with Slots(1, address_space_bytes=ROOM, tasks="tests.support.slot_tasks") as one:
        before = one.run("echo", {}, 20)["pid"]
        start = time.monotonic()
        with pytest.raises(StageTimeout):
            one.run("hang", {}, 0.3)
        assert time.monotonic() - start < 5
        after = one.run("echo", {}, 20)["pid"]
        assert after != before
        with pytest.raises(ProcessLookupError):
            os.kill(before, 0)


def test_a_hung_decoder_is_told_as_the_caller_wants(slots):
    with pytest.raises(UndecodablePixels):
        slots.run("hang", {}, 0.3, lost=UndecodablePixels)


def test_too_much_memory_fails_one_call_and_not_the_machine(slots):
    with pytest.raises(SlotDied, match="memory"):
        slots.run("swallow", {"bytes": 2 * ROOM}, 20)
    assert slots.run("swallow", {"bytes": 1 << 20}, 20) == {"bytes": 1 << 20}


def test_a_foreseen_failure_comes_back_as_its_record(slots):
    with pytest.raises(WhylightError) as raised:
        slots.run("refuse", {"frames": 3}, 20)
    failure = raised.value.failure()
    assert (failure.code, failure.detail, failure.facts) == (
        "unsupported_image",
        "Not this one.",
        {"frames": 3},
    )


def test_a_bug_is_told_by_its_place_and_never_by_its_text(slots):
    with pytest.raises(SlotBug) as raised:
        slots.run("stumble", {"patient": "Canary^Patient"}, 20)
    assert "KeyError" in str(raised.value)
    assert "slot_tasks.py" in str(raised.value)
    assert "Canary" not in str(raised.value)


def test_the_products_tasks_load_no_tensor_library(slots):
    loaded = slots.run("modules", {"tasks": "workers.tasks"}, 60)["loaded"]
    assert "pydicom" in loaded
    assert not {"torch", "onnxruntime", "fastapi"} & set(loaded)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_workers_group_lets_tasks_end(slots, sign, tmp_path):
    begun = [tmp_path / "one", tmp_path / "other"]
    with ThreadPoolExecutor(2) as pool:
        asked = ({"seconds": 0.5, "begun": str(each)} for each in begun)
        calls = [pool.submit(slots.run, "doze", each, 20) for each in asked]
        while not all(each.exists() for each in begun):  # a slot that still starts is not deaf
            assert not any(each.done() and each.exception() for each in calls)
            time.sleep(0.01)
        signalled = own_slots()
        for slot in signalled:
            slot.send_signal(sign)
        assert {each.result()["pid"] for each in calls} <= {slot.pid for slot in signalled}


def own_slots() -> list[psutil.Process]:
    """Return this process's slots; a stack of other tests may be its child as well."""
    children = psutil.Process().children()
    return [each for each in children if "workers.slot_main" in each.cmdline()]


def test_closing_ends_every_process():
    slots = Slots(2, address_space_bytes=ROOM, tasks="tests.support.slot_tasks")
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(slots.run, "doze", {"seconds": 0.3}, 20) for _ in range(2)]
        pids = {call.result()["pid"] for call in calls}
    slots.close()
    assert len(pids) == 2
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
