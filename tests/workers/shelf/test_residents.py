"""Models that share a memory which is too small for all of them."""

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from service.errors.jobs import Cancelled
from service.errors.models import DoesNotFit
from service.packages import PackageRecord
from service.telemetry import REGISTRY
from tests.workers.shelf.conftest import Room
from workers import residents

NAMES = ("first", "second", "third")


def patient() -> None:
    """Wait on."""


def held(room: Room) -> set[str]:
    """Return the names of the models in memory."""
    return {model.manifest.id for model in room.shelf.residents.models()}


def wanted(room: Room, package: PackageRecord) -> int:
    return room.shelf.get(package.package).replicas.wanted


def told(metric: str, name: str) -> float | None:
    return REGISTRY.get_sample_value(f"whylight_{metric}", {"model": f"{name}@1.0.0"})


@pytest.fixture
def three(room: Room) -> tuple[PackageRecord, ...]:
    """Three models of one size, of which two fit the memory beside a batch."""
    records = []
    for seed, name in enumerate(NAMES):
        records.append(room.register(name, seed=seed))
        room.shelf.sync()
        fixed = room.shelf.get(records[0].package).replicas.probed.fixed_bytes
        room.shelf.residents.budget = wanted(room, records[0]) + fixed
    return tuple(records)


def started(work: Callable[[], Any]) -> threading.Thread:
    """Run `work` on another thread."""
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_the_least_recently_used_leaves_and_comes_back_with_the_same_answer(
    room: Room, three: tuple[PackageRecord, ...]
) -> None:
    assert held(room) == {"second", "third"}
    assert [told("model_loaded", name) for name in NAMES] == [0, 1, 1]
    before = told("model_evictions_total", "second")
    entry = room.shelf.entries()[three[0].package]
    with room.shelf.lent(three[0].package, patient) as model:
        assert held(room) == {"third", "first"}
        image = torch.ones(1, *model.runtime.shape)
        again = room.shelf._loader._logits(model.runtime, model.ref.package, image)
    assert told("model_evictions_total", "second") == (before or 0) + 1
    with room.shelf.lent(three[0].package, patient) as model:
        assert room.shelf.entries()[three[0].package] == entry
        same = room.shelf._loader._logits(model.runtime, model.ref.package, image)
    assert (again == same).all()
    # every one of them is offered all the while
    assert set(room.shelf.ready()) == {each.package for each in three}


def test_a_model_in_use_never_leaves_and_who_wants_another_waits(
    room: Room, three: tuple[PackageRecord, ...]
) -> None:
    first, _, third = three
    room.shelf.residents.budget = wanted(room, first)
    entered = threading.Event()

    def use_first() -> None:
        with room.shelf.lent(first.package, patient):
            entered.set()

    with room.shelf.lent(third.package, patient):
        waiting = started(use_first)
        assert not entered.wait(0.5)
        assert "third" in held(room)
        with room.shelf.lent(third.package, patient):  # who uses what is there passes
            assert not entered.is_set()
    waiting.join(20)
    assert entered.is_set()
    assert held(room) == {"first"}


def test_who_waits_long_is_passed_by_nobody_more(
    room: Room, three: tuple[PackageRecord, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residents, "PATIENCE", 0.0)
    first, _, third = three
    room.shelf.residents.budget = wanted(room, first)
    order: list[str] = []

    def use(name: str, package: PackageRecord) -> None:
        with room.shelf.lent(package.package, patient):
            order.append(name)

    with room.shelf.lent(third.package, patient):
        waiting = [started(lambda: use("first", first))]
        time.sleep(0.3)
        waiting.append(started(lambda: use("third", third)))
        time.sleep(0.3)
        assert order == []
    for each in waiting:
        each.join(20)
    assert order == ["first", "third"]


def test_who_waits_can_be_stopped(room: Room, three: tuple[PackageRecord, ...]) -> None:
    room.shelf.residents.budget = wanted(room, three[0])

    def stop() -> None:
        raise Cancelled("Enough.")

    with (
        room.shelf.lent(three[2].package, patient),
        pytest.raises(Cancelled),
        room.shelf.lent(three[0].package, stop),
    ):
        raise AssertionError
    with room.shelf.lent(three[0].package, patient):  # nothing was left behind
        assert held(room) == {"first"}


def test_a_model_that_never_fits_is_refused_with_figures_and_what_to_do(room: Room) -> None:
    small = room.register()
    assert room.entry(small).state == "ready"
    entry = room.entry(small)
    assert entry.memory is not None
    assert entry.load_seconds is not None
    assert entry.load_seconds > 0
    room.shelf.residents.budget = entry.memory.fixed_bytes + entry.memory.row_bytes["forward"] // 2
    large = room.register("large", seed=1)
    assert "WHYLIGHT_WORKER__MEMORY_BYTES" in room.refusal(large)
    failure = room.entry(large).failure
    assert failure is not None
    assert failure.code == "model_does_not_fit"
    assert failure.facts["budget_bytes"] == room.shelf.residents.budget
    assert failure.facts["fixed_bytes"] == entry.memory.fixed_bytes
    assert failure.facts["row_bytes"] == entry.memory.row_bytes
    assert failure.facts["needed_bytes"] == (
        entry.memory.fixed_bytes + entry.memory.row_bytes["forward"]
    )
    assert room.shelf.ready() == (small.package,)


def test_weights_larger_than_the_memory_are_refused_before_they_are_read(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.shelf._loader, "load", None)
    room.shelf.residents.budget = 100
    assert "WHYLIGHT_WORKER__MEMORY_BYTES" in room.refusal(room.register())


def test_full_memory_at_loading_has_idle_models_leave(
    room: Room, three: tuple[PackageRecord, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a device that another program fills: the estimate was right, and memory is short."""
    restore, tried = room.shelf._loader.restore, []

    def scarce(*args: Any) -> None:
        tried.append(held(room))
        if len(tried[-1]) > 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        restore(*args)

    monkeypatch.setattr(room.shelf._loader, "restore", scarce)
    with room.shelf.lent(three[0].package, patient):
        assert held(room) == {"first"}
    assert tried == [{"third"}, set()]
    with (
        room.shelf.lent(three[0].package, patient),
        pytest.raises(DoesNotFit),
        room.shelf.lent(three[1].package, patient),
    ):
        raise AssertionError
    assert held(room) == {"first"}


def test_who_left_for_a_model_that_turns_out_too_large_serves_on(
    room: Room, three: tuple[PackageRecord, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond its weights, what a model takes is known only once it was tried."""

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def refused(name: str) -> None:
        large = room.register(name, shape={"widths": [8, 128]})
        room.shelf.residents.budget = room.packages.manifest(large.package).weight_bytes + spare
        assert "WHYLIGHT_WORKER__MEMORY_BYTES" in room.refusal(large)
        assert held(room) == set()
        for each in three:
            with room.shelf.lent(each.package, patient):  # its self-tests are answered anew
                pass

    spare = 4096  # the others leave for its weights, and then there is no room for a row
    refused("large")
    spare = 1 << 20  # its weights fit beside the others, and the device is full all the same
    monkeypatch.setattr(room.shelf._loader, "load", full)
    refused("larger")


# ---------------------------------------------------------------- what is made of a model


def owned(room: Room, work: Callable[[], Any]) -> Any:
    return room.shelf._loader._owned(work)


def weights(runtime: Any) -> int:
    """Return the bytes of a replica's parameters and buffers, those that are shared once."""
    networks = (runtime.model, runtime.served)
    tensors = [each for net in networks for each in (*net.parameters(), *net.buffers())]
    return sum({each.data_ptr(): each.nbytes for each in tensors}.values())


def test_copies_that_are_measured_take_their_bytes_from_batches_while_they_live(room: Room) -> None:
    package = room.register()
    room.shelf.sync()
    model, shelf = room.shelf.get(package.package), room.shelf.residents
    before = shelf.left()
    copies = [owned(room, lambda: model.runtime.variant(None)) for _ in range(2)]
    copies.append(owned(room, lambda: copies[0].variant(None)))  # of a copy
    copies.append(owned(room, lambda: model.runtime.recast(torch.float64)))
    taken = before - shelf.left()
    assert taken == sum(map(weights, copies))
    assert weights(copies[-1]) > 1.5 * weights(model.runtime)
    copies.clear()
    gc.collect()
    assert shelf.left() == before


def test_a_replica_in_bfloat16_counts_by_its_own_bytes_until_the_model_leaves(room: Room) -> None:
    package = room.register()
    room.shelf.sync()
    model, shelf = room.shelf.get(package.package), room.shelf.residents
    before = shelf.left()
    narrow = owned(room, lambda: model.replicas.at("bfloat16"))
    size = weights(narrow)
    assert 0 < size < weights(model.runtime)
    assert before - shelf.left() == size
    del narrow
    room.shelf._loader.unload(model)
    assert shelf.left() == shelf.budget
