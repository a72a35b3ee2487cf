"""Who is served when, and how many rows at once."""

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.support.engine import logits
from workers.batches import fair_shares
from workers.pace import REOPEN, Pace
from workers.passes import Forward, Plan, Step
from workers.rows import Noisy
from workers.running import Planned
from workers.runtimes.base import Fit
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

ROW = 0.004
"""Seconds a row of the slow model."""


class Slow(nn.Module):
    """Takes a fixed time for each row, and for each batch, so that rates are known."""

    def __init__(self, batch: float = 0.0) -> None:
        super().__init__()
        self._batch = batch
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        time.sleep(self._batch + ROW * len(x))
        return x.flatten(1).sum(1, keepdim=True)


def slow_runtime(batch: float = 0.0) -> tuple[Slow, TorchRuntime]:
    model = Slow(batch)
    runtime = TorchRuntime(model, (1, 4))
    assert not runtime.probed.mixes_rows
    model.batches.clear()
    return model, runtime


def rows(count: int, width: int = 4) -> Planned[Step]:
    def plan() -> Plan[Step]:
        step: Step = yield Forward(Noisy(torch.zeros(1, width), 1.0, 1, count), logits(0))
        return step

    return Planned(plan(), count)


def test_the_first_batch_of_an_unknown_rate_has_one_row() -> None:
    model, runtime = slow_runtime()
    scheduler = Scheduler(slice_seconds=10.0)
    scheduler.submit("big", runtime, [rows(30)])
    scheduler.run_until_idle()
    assert model.batches[0] == 1
    assert sum(model.batches) == 30


def test_the_time_slice_holds_where_jobs_meet() -> None:
    model, runtime = slow_runtime()
    scheduler = Scheduler(slice_seconds=3.5 * ROW)
    for name in ("one", "other"):
        scheduler.submit(name, runtime, [rows(30)])
    scheduler.run_until_idle()
    assert sum(model.batches) == 60
    assert max(model.batches) in (2, 3)


def test_a_batch_may_take_longer_while_a_job_is_alone() -> None:
    model, runtime = slow_runtime()
    scheduler = Scheduler(slice_seconds=1.5 * ROW)
    scheduler.submit("alone", runtime, [rows(40)])
    scheduler.run_until_idle()
    assert max(model.batches) in (4, 5, 6)


def test_a_job_that_was_visited_keeps_to_the_slice_for_a_while() -> None:
    model, runtime = slow_runtime()
    scheduler = Scheduler(slice_seconds=1.5 * ROW)
    scheduler.submit("big", runtime, [rows(100)])
    for _ in range(5):
        scheduler.turn()
    visitor = scheduler.submit("visitor", runtime, [rows(1, width=5)])  # shares no batch
    while not visitor.done():
        scheduler.turn()
    model.batches.clear()
    for _ in range(5):
        scheduler.turn()
    assert max(model.batches) == 1


def test_a_row_longer_than_the_slice_is_served_alone() -> None:
    model, runtime = slow_runtime()
    scheduler = Scheduler(slice_seconds=ROW / 50)
    scheduler.submit("alone", runtime, [rows(5)])
    scheduler.run_until_idle()
    assert model.batches == [1] * 5


def test_a_small_job_does_not_wait_for_a_big_one() -> None:
    model, runtime = slow_runtime()
    scheduler = Scheduler(slice_seconds=ROW / 2)
    big = scheduler.submit("big", runtime, [rows(200)])
    for _ in range(10):
        scheduler.turn()
    small = scheduler.submit("small", runtime, [rows(1, width=5)])  # shares no batch
    for _ in range(2):
        scheduler.turn()
    assert small.done()
    assert not big.done()
    assert sum(model.batches) < 30
    scheduler.stop(drain=False)
    scheduler.run_until_idle()


def test_a_newcomer_owes_nothing_and_is_owed_nothing() -> None:
    """It enters at the turns of those at hand: no burst, and no starvation."""
    model, runtime = slow_runtime()
    scheduler = Scheduler(slice_seconds=ROW)
    old = scheduler.submit("old", runtime, [rows(400)])
    for _ in range(20):
        scheduler.turn()
    model.batches.clear()
    new = scheduler.submit("new", runtime, [rows(400, width=5)])
    for _ in range(20):
        scheduler.turn()
    scheduler.stop(drain=False)
    scheduler.run_until_idle()
    done = [job.result(0).rows for job in (old, new)]
    assert 6 <= done[1] <= 14
    assert done[0] >= 26


def test_turns_follow_weights() -> None:
    _, runtime = slow_runtime()
    scheduler = Scheduler(slice_seconds=ROW)
    light = scheduler.submit("light", runtime, [rows(400)], weight=1.0)
    heavy = scheduler.submit("heavy", runtime, [rows(400, width=5)], weight=3.0)
    for _ in range(48):
        scheduler.turn()
    scheduler.stop(drain=False)
    scheduler.run_until_idle()
    ratio = heavy.result(0).rows / light.result(0).rows
    assert 2.0 <= ratio <= 4.0


@pytest.mark.parametrize(
    ("budget", "waiting", "given"),
    [
        (8, [100, 100], [4, 4]),
        (7, [100, 100], [4, 3]),
        (8, [1, 100], [1, 7]),
        (8, [2, 2], [2, 2]),
        (1, [5, 5, 5], [1, 0, 0]),
        (9, [1, 2, 100], [1, 2, 6]),
        (3, [9], [3]),
    ],
)
def test_rows_are_shared_equally_and_the_lead_gets_the_odd_one(
    budget: int, waiting: list[int], given: list[int]
) -> None:
    assert fair_shares(budget, waiting) == given


def settle(pace: Pace, seconds: Callable[[int], float], slice_seconds: float = 10.0) -> list[int]:
    """Return the sizes that a pace chooses when a batch takes `seconds(rows)`."""
    sizes = []
    for _ in range(12):
        size = pace.rows(slice_seconds)
        pace.record(size, seconds(size))
        sizes.append(size)
    return sizes


def test_the_chunk_stops_growing_where_rows_get_dearer() -> None:
    def seconds(size: int) -> float:
        return 0.01 + size * (0.01 if size <= 8 else 0.03)

    assert settle(Pace(Fit(rows=64)), seconds)[-5:] == [8] * 5


def test_the_chunk_keeps_to_the_limit() -> None:
    assert max(settle(Pace(Fit(rows=6)), lambda size: 0.01 + size * 0.001)) == 6


def test_batches_follow_the_memory_that_is_left() -> None:
    """Another model that comes takes of it, and gives it back when it leaves."""
    model, runtime = slow_runtime(batch=5 * ROW)
    row = runtime.probed.row_bytes["forward"]
    left = [6 * row]
    scheduler = Scheduler(slice_seconds=10.0, memory=lambda: left[0])
    for room in (6, 2, 0, 6):
        left[0] = room * row
        model.batches.clear()
        scheduler.submit("job", runtime, [rows(14)])
        scheduler.run_until_idle()
        assert sum(model.batches) == 14
        assert max(model.batches) <= max(1, room)
    assert max(model.batches) > 2


def test_one_disturbed_call_does_not_shrink_the_slice() -> None:
    pace = Pace(Fit(rows=64))
    settle(pace, lambda size: 0.01 * size, slice_seconds=0.08)
    before = pace.rows(0.08)
    pace.record(before, 5.0)
    assert pace.rows(0.08) == before


def test_a_halved_limit_is_tried_further_again_after_many_clean_batches() -> None:
    pace = Pace(Fit(rows=16))
    settle(pace, lambda size: 0.01 + 0.001 * size)
    pace.shrink(16)
    assert pace.rows(10.0) == 8
    for _ in range(REOPEN):
        pace.record(8, 0.018)
    assert pace.rows(10.0) == 16


def test_a_fixed_size_is_kept_whatever_was_measured() -> None:
    assert settle(Pace(Fit(rows=4, fixed=True)), lambda _: 9.0, 0.001) == [4] * 12
