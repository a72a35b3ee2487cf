"""What the scheduler adds to a batch: its CPU time with passes, less the passes' own.

A model so small that its own call is tens of microseconds is served in batches
of eight jobs, and the same calls are then made on the runtime alone::

    python -m benchmarks.scheduler [batches]
"""

import sys
import time
from statistics import median
from typing import Any, Final

import torch
from torch import nn
from typing_extensions import override

from benchmarks.measure import MISSED, conditions, publish
from workers.passes import Forward, Plan, Step
from workers.rows import Noisy
from workers.running import Planned
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler
from workers.targets.scalars import ClassLogit

BATCHES: Final = 300
BAR: Final = 200e-6
TARGETS: Final = (ClassLogit(0),)


class Counted(TorchRuntime):
    """A runtime that adds up the time of its own batches."""

    batches = 0
    seconds = 0.0

    @override
    def serve(self, group: Any, segments: Any) -> Any:
        """Serve a batch and count its CPU time."""
        began = time.process_time()
        try:
            return super().serve(group, segments)
        finally:
            self.seconds += time.process_time() - began
            self.batches += 1


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))


def plan(image: torch.Tensor, rows: int) -> Plan[None]:
    def fold(_start: int, _step: Step) -> None:
        return None

    yield Forward(Noisy(image, 0.1, 1, rows), TARGETS, fold=fold)


def added(jobs: int, rows: int, slice_seconds: float) -> tuple[float, float, int]:
    """Return seconds added to each batch, rows to a batch, and batches, for one run."""
    runtime = Counted(tiny(), (1, 8, 8))
    assert not runtime.probed.mixes_rows
    memory = runtime.probed.row_bytes["forward"] * rows
    scheduler = Scheduler(slice_seconds=slice_seconds, memory=lambda: memory)
    images = [torch.randn(1, 8, 8) for _ in range(jobs)]
    for k, image in enumerate(images):
        scheduler.submit(f"{k}", runtime, [Planned(plan(image, BATCHES), BATCHES)])
    scheduler.turn()
    runtime.batches, runtime.seconds = 0, 0.0
    began = time.process_time()
    scheduler.run_until_idle()
    spent = time.process_time() - began
    return (
        (spent - runtime.seconds) / runtime.batches,
        jobs * BATCHES / runtime.batches,
        runtime.batches,
    )


def job_seconds(count: int) -> float:
    """Return the seconds that submit, start, end and check add to a job of one batch."""
    runtime = Counted(tiny(), (1, 8, 8))
    scheduler = Scheduler()
    image = torch.randn(1, 8, 8)
    each = []
    for _ in range(count):
        runtime.seconds = 0.0
        began = time.process_time()
        scheduler.submit("job", runtime, [Planned(plan(image, 1), 1)])
        scheduler.run_until_idle()
        each.append(time.process_time() - began - runtime.seconds)
    return median(each)


def main() -> int:
    torch.set_num_threads(1)
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    cases = {"one job, one row a batch": (1, 1), "8 jobs, 8 rows a batch": (8, 8)}
    result: dict[str, Any] = {}
    for name, (jobs, rows) in cases.items():
        runs = [added(jobs, rows, 1.0) for _ in range(repeats)]
        overhead = median(run[0] for run in runs)
        result[name] = {
            "added_us_a_batch": round(overhead * 1e6, 1),
            "rows_a_batch": round(median(run[1] for run in runs), 2),
            "batches": runs[0][2],
        }
        print(f"{name:28} {overhead * 1e6:6.1f} us a batch")
    a_job = job_seconds(300)
    print(f"{'a job of one batch':28} {a_job * 1e6:6.1f} us a job")
    held = all(case["added_us_a_batch"] <= BAR * 1e6 for case in result.values())
    path = publish(
        "scheduler",
        {
            "conditions": conditions(("torch",)),
            "cases": result,
            "added_us_a_job_of_one_batch": round(a_job * 1e6, 1),
            "bar_us_a_batch": BAR * 1e6,
            "held": held,
        },
    )
    print(f"bar held: {held}; written to {path}")
    return 0 if held else MISSED


if __name__ == "__main__":
    raise SystemExit(main())
