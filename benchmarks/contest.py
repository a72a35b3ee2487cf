"""Cases of one benchmark program: ours, its peers, a floor and a control, side by side.

A case counts only after its maps were found equal to an oracle's. The first
competitor is ours; bars are least ratios of a peer's CPU time to ours, and
hold for a CPU alone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.measure import (
    CLOCK,
    CONTROL,
    DEVICE,
    Ratio,
    conditions,
    publish,
    ratio,
    rounds,
    within,
)
from workers.methods.base import Maps
from workers.passes import Plan
from workers.running import Planned
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import SLICE, Scheduler

OURS: Final = "whylight"
FLOOR: Final = "floor"
EQUAL: Final = 1e-5 if DEVICE.type == "cpu" else 1e-4
"""Largest difference to a float64 oracle, as a share of its range.

A GPU's libraries may multiply by Winograd's way, which costs a digit, whoever asks.
"""

NARROW, NARROW_FLOOR = "whylight, bfloat16", "floor, bfloat16"
UNLIKE: Final = "bfloat16, 1 - r"
ALIKE: Final = 1e-3
"""Most that the correlation of a CAM in bfloat16 with a float64 oracle may lack to 1."""

ALONE: Final = 1.0
"""Seconds of a batch where nobody else waits; the service's own default is 0.05."""

Run = Callable[[], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Competitors on one model."""

    name: str
    runs: Mapping[str, Run]
    """Ours first."""

    bars: Mapping[str, float]
    """By peer."""

    errors: Mapping[str, float]
    """By competitor, on the case's own scale."""

    allowed: float = EQUAL
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else there is to tell, such as passes used."""

    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Figures beside the times, each with what it may be at most."""

    modes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Competitors that are ours in another way, each with bars of its own."""

    count: int = 9
    """Rounds that are timed at most."""


class Own:
    """Our side: a probed runtime, and a scheduler through which every job goes."""

    def __init__(self, runtime: TorchRuntime, *, slice_seconds: float = SLICE) -> None:
        assert runtime.probed.abilities
        self.runtime = runtime
        self._scheduler = Scheduler(slice_seconds=slice_seconds)

    def ask(self, *jobs: Sequence[Plan[Maps]]) -> list[list[Maps]]:
        """Return the maps of jobs that arrive together, each of one or more plans."""
        futures = [
            self._scheduler.submit(f"{k}", self.runtime, [Planned(plan, 1) for plan in plans])
            for k, plans in enumerate(jobs)
        ]
        self._scheduler.run_until_idle()
        return [[_map(outcome) for outcome in job.result(0).outcomes] for job in futures]

    def one(self, plan: Plan[Maps]) -> Maps:
        """Return the maps of one plan."""
        ((maps,),) = self.ask([plan])
        return maps


def loaded(
    net: nn.Module, shape: Sequence[int], layers: Sequence[str] = (), **options: Any
) -> TorchRuntime:
    """Return the runtime that serves a network on the device of the benchmarks."""
    return TorchRuntime(net, shape, layers, device=DEVICE, **options)


def _map(outcome: Maps | Exception) -> Maps:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def unlike(values: Tensor, expected: Tensor) -> float:
    """Return one less the correlation of two maps, which is what bfloat16 is judged by."""
    pair = torch.stack([values.double().flatten(), expected.flatten()])
    return 1 - torch.corrcoef(pair)[0, 1].item()


def error(values: Tensor, expected: Tensor) -> float:
    """Return the largest difference, as a share of the expected map's range."""
    span = expected.max() - expected.min()
    return ((values.double() - expected).abs().max() / span).item()


def bare(net: nn.Module, batch: Tensor, times: int = 1) -> Run:
    """Return forward passes of the model alone, without a graph."""

    def run() -> None:
        with torch.no_grad():
            for _ in range(times):
                net(batch)

    return run


def hold(program: str, packages: Sequence[str], cases: Iterable[Case], count: int | None) -> int:
    """Measure all cases and publish them; return 0 if each is valid and every bar held."""
    found, good = {}, True
    for case in cases:
        print(f"-- {case.name}")
        print("errors:", {name: f"{value:.2g}" for name, value in case.errors.items()})
        if max(case.errors.values()) > case.allowed:
            print(f"an error is over {case.allowed:g}: timings would mean nothing")
            good = False
            continue
        found[case.name] = _measured(case, count or case.count)
        good &= found[case.name]["valid"] and all(found[case.name]["held"].values())
    where = publish(program, {"conditions": conditions(packages), "cases": found})
    print(f"written to {where}")
    return 0 if good else 1


def _measured(case: Case, count: int) -> dict[str, Any]:
    """Time one case and print its lines."""
    spent = rounds({**case.runs, CONTROL: case.runs[OURS]}, count)
    bars, modes = (case.bars, case.modes) if DEVICE.type == "cpu" else ({}, {})
    ratios = {
        clock: {
            name: ratio(spent[name][clock], spent[OURS][clock]) for name in spent if name != OURS
        }
        for clock in ("cpu", "wall")
    }
    for name, clocks in spent.items():
        print(f"{name:36} cpu {median(clocks['cpu']):.4f} s  wall {median(clocks['wall']):.4f} s")
    for name, each in ratios[CLOCK].items():
        _tell(name, OURS, each, bars.get(name))
    held = {name: ratios[CLOCK][name].median >= bar for name, bar in bars.items()}
    beside: dict[str, dict[str, Ratio]] = {}
    for mode, least in modes.items():
        beside[mode] = {
            name: ratio(spent[name][CLOCK], spent[mode][CLOCK]) for name in spent if name != mode
        }
        for name, each in beside[mode].items():
            _tell(name, mode, each, least.get(name))
        held |= {
            f"{name} / {mode}": beside[mode][name].median >= bar for name, bar in least.items()
        }
    held |= {name: value <= most for name, (value, most) in case.limits.items()}
    valid = within(ratios[CLOCK][CONTROL])
    print(f"bars held: {held}; control valid: {valid}; {dict(case.facts)} {dict(case.limits)}")
    return {
        "errors": dict(case.errors),
        "ratios": {clock: _plain(each) for clock, each in ratios.items()},
        "bars": dict(bars),
        "modes": {
            mode: {"ratios": _plain(each), "bars": dict(modes[mode])}
            for mode, each in beside.items()
        },
        "limits": {name: list(pair) for name, pair in case.limits.items()},
        "held": held,
        "valid": valid,
        "facts": dict(case.facts),
        "seconds": spent,
    }


def _tell(name: str, subject: str, found: Ratio, bar: float | None) -> None:
    """Print one line of a case."""
    end = "" if bar is None else f"  bar {bar}"
    print(f"{name:36} / {subject}: {found.median:.3f} [{found.low:.3f}, {found.high:.3f}]{end}")


def _plain(ratios: Mapping[str, Ratio]) -> dict[str, list[float]]:
    return {name: [each.median, each.low, each.high] for name, each in ratios.items()}
