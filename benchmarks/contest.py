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
    INVALID,
    MISSED,
    ROUNDS,
    Ratio,
    complete,
    conditions,
    least,
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

BATCHES: Final = (4, 8, 16, 32)
"""Rows to a call among which a peer's best tuning is sought."""

ATTEMPTS: Final = 4
"""Runs of a case at most, until one has a control that is not off: a neighbor may be loud."""

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
    gates: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Errors on scales of their own, each with what it may be at most."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else there is to tell, such as passes used."""

    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Figures beside the times, each with what it may be at most."""

    modes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Competitors that are ours in another way, each with bars of its own."""

    count: int = ROUNDS
    """Rounds that are timed at most."""

    def faults(self) -> list[str]:
        """Return what makes timings of this case mean nothing."""
        every = {name: (value, self.allowed) for name, value in self.errors.items()}
        every |= self.gates
        return [
            f"{name}: an error of {value:.3g}, over {most:.3g}"
            for name, (value, most) in every.items()
            if not value <= most  # nor where it is not a number
        ]


@dataclass(frozen=True, slots=True)
class Unmet:
    """A case that cannot be timed, because no size that was tried is near enough."""

    name: str
    what: str

    def faults(self) -> list[str]:
        """Return what makes this case mean nothing."""
        return [f"no number of {self.what} that was tried met the error"]


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


def fewest(
    sizes: Iterable[int], error_of: Callable[[int], float], allowed: float
) -> tuple[int, float] | None:
    """Return the first size whose error is allowed, and its error; None where there is none."""
    found = ((each, error_of(each)) for each in sizes)
    return next((pair for pair in found if pair[1] <= allowed), None)


def quickest(run: Callable[[int], object], batches: Sequence[int] = BATCHES) -> int:
    """Return the batch with which a peer is quickest; the first runs warm up."""
    return min(batches, key=lambda batch: least(lambda: run(batch), 2))


def hold(
    program: str, packages: Sequence[str], cases: Iterable[Case | Unmet], count: int | None
) -> int:
    """Measure all cases, publish them, and return the exit status.

    It is 0 if each case is valid and every bar held, `MISSED` if only bars were missed,
    and `INVALID` if a case says nothing. A run with a number of rounds of its own is a
    trial and is not kept.
    """
    found: dict[str, dict[str, Any]] = {}
    for case in cases:
        print(f"-- {case.name}")
        if faults := case.faults():
            print("not timed:", "; ".join(faults))
            found[case.name] = {"valid": False, "faults": faults}
        else:
            assert isinstance(case, Case)
            found[case.name] = _undisturbed(case, count or case.count)
    where = "not kept: the number of rounds was given"
    if count is None:
        told = {"conditions": conditions(packages), "cases": found}
        where = f"written to {publish(program, told)}"
    print(where)
    invalid = [name for name, case in found.items() if not case["valid"]]
    missed = [
        f"{name}: {bar}"
        for name, case in found.items()
        for bar, held in case.get("held", {}).items()
        if case["valid"] and not held
    ]
    print("not valid:", "; ".join(invalid) or "none")
    print("bars missed:", "; ".join(missed) or "none")
    if invalid:
        return INVALID
    return MISSED if missed else 0


def _undisturbed(case: Case, count: int) -> dict[str, Any]:
    """Time one case, anew where the control was off; tell how many runs were discarded."""
    discarded = 0
    while not (found := _measured(case, count))["valid"] and discarded < ATTEMPTS - 1:
        discarded += 1
    return found | {"discarded": discarded}


def _measured(case: Case, count: int) -> dict[str, Any]:
    """Time one case and print its lines."""
    print("errors:", {name: f"{value:.2g}" for name, value in case.errors.items()})
    print(
        "gates:", {name: f"{value:.2g} of {most:.2g}" for name, (value, most) in case.gates.items()}
    )
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
    for mode, bars_of_mode in modes.items():
        beside[mode] = {
            name: ratio(spent[name][CLOCK], spent[mode][CLOCK]) for name in spent if name != mode
        }
        for name, each in beside[mode].items():
            _tell(name, mode, each, bars_of_mode.get(name))
        held |= {
            f"{name} / {mode}": beside[mode][name].median >= bar
            for name, bar in bars_of_mode.items()
        }
    held |= {name: value <= most for name, (value, most) in case.limits.items()}
    control = ratios[CLOCK][CONTROL]
    valid = within(control) and complete(spent)
    print(f"bars held: {held}; {dict(case.facts)} {dict(case.limits)}")
    print(f"control within 5 %: {within(control)}; rounds enough: {complete(spent)}")
    return {
        "errors": dict(case.errors),
        "gates": {name: list(pair) for name, pair in case.gates.items()},
        "rounds": control.rounds,
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
    print(
        f"{name:36} / {subject}: {found.median:.3f} [{found.low:.3f}, {found.high:.3f}]"
        f" of {found.rounds} rounds{end}"
    )


def _plain(ratios: Mapping[str, Ratio]) -> dict[str, list[float]]:
    return {name: [each.median, each.low, each.high] for name, each in ratios.items()}
