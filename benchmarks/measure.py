"""How everything here is measured: interleaved, with a control, beside its conditions.

Rounds are ABBA: each competitor runs in order and then in reverse, so that a
drift of the machine falls on all alike. Two rounds warm up; nine are timed, or as
many as begin within 20 seconds, three at least; of a competitor's runs in a round the
shortest counts, because what disturbs a run makes it longer. The figure is the median of the
rounds' ratios with a bootstrap interval of 95 %. The first competitor runs twice,
as A and A': where this control is off by more than 5 %, the run says nothing.

Everything runs on a CPU, or with ``BENCH_DEVICE=cuda`` on a GPU; a run has ended when the
device has. Of a CPU the ratios are those of its time; of a GPU those of the clock.

Nothing is published from a busy machine: where the load average was over half
of the cores before the run, or is after it without what the run itself adds, the
result goes to standard output alone, unless ``PUBLISH_ANYWAY=1`` is set.
"""

import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import torch

from workers.device import choose, forbid_tf32, hardware, synchronize

RESULTS: Final = Path(__file__).parent / "results"
DEVICE: Final = choose(os.environ.get("BENCH_DEVICE", "cpu"))
"""Where networks and images of the benchmarks lie."""

CLOCK: Final = "cpu" if DEVICE.type == "cpu" else "wall"
"""What ratios are judged by."""

WARM_UP: Final = 2
ROUNDS: Final = 9
"""Rounds that are timed, unless they take too long."""

OFTEN: Final = 5
"""Runs in a row at most of what is short beside the others."""

LEAST: Final = 3
"""Rounds that are timed in any case."""

ENOUGH: Final = 20.0
"""Wall seconds of timed rounds after which there are no more."""

MISSED: Final = 3
"""Exit status of a program that measured well and missed a bar; 1 is Python's own failure."""

INVALID: Final = 4
"""Exit status of a program one of whose cases says nothing."""

RESAMPLES: Final = 4000
CONTROL: Final = "control"
CONTROL_TOLERANCE: Final = 0.05
ANYWAY: Final = "PUBLISH_ANYWAY"

LOAD_BEFORE: Final = float(os.environ.get("LOAD_BEFORE", os.getloadavg()[0]))
"""Load average of the last minute when the program began: its own is not in it yet.

Where one program follows another, what it was before the first of them is handed down.
"""

BEGAN: Final = float(os.environ.get("BENCH_BEGAN", time.time()))
"""When this program began, or the first of those that follow each other."""

FORGETS: Final = 60.0
"""Seconds in which a load average of one minute forgets all but 1/e."""

CPUINFO: Final = Path("/proc/cpuinfo")

UNITS: Final = ("amx", "avx", "fma", "bf16", "sve", "asimd")
"""How flags of units begin that multiply many numbers at once, on x86-64 and on ARM.

torch's own word stops at AVX512, and says nothing of AMX or ``avx512_bf16``.
"""


forbid_tf32()


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long a peer takes as the subject."""

    median: float
    low: float
    """Lower end of the 95 % interval."""

    high: float
    rounds: int


def rounds(
    runs: Mapping[str, Callable[[], object]], count: int
) -> dict[str, dict[str, list[float]]]:
    """Return seconds by competitor and clock, ``cpu`` and ``wall``, one entry a round.

    An entry is the shortest of a competitor's runs in the round: what disturbs a run makes it
    longer. There are two, more of what takes under a tenth of the longest, and at most
    `count` rounds.
    """
    order = [*runs, *reversed(list(runs))]
    spent: dict[str, dict[str, list[float]]] = {name: {"cpu": [], "wall": []} for name in runs}
    times = dict.fromkeys(runs, 1)
    timed = 0.0
    for number in range(WARM_UP + count):
        if number >= WARM_UP + LEAST and timed >= ENOUGH:
            break
        best = dict.fromkeys(runs, (math.inf, math.inf))
        for name in order:
            for _ in range(times[name]):
                best[name] = _shorter(best[name], _timed(runs[name]))
        longest = max(wall for _, wall in best.values())
        times = {name: min(OFTEN, 1 + int(longest / wall / 10)) for name, (_, wall) in best.items()}
        if number >= WARM_UP:
            for name, (cpu, wall) in best.items():
                spent[name]["cpu"].append(cpu)
                spent[name]["wall"].append(wall)
                timed += 2 * wall
    return spent


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that a run takes, of the processor and of the clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    synchronize(DEVICE)
    return time.process_time() - cpu, time.perf_counter() - wall


def _shorter(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return min(one[0], other[0]), min(one[1], other[1])


def ratio(peer: Sequence[float], subject: Sequence[float]) -> Ratio:
    """Return the median of per-round ratios, with its bootstrap interval."""
    each = np.asarray(peer) / np.asarray(subject)
    random = np.random.default_rng(0)
    medians = np.median(random.choice(each, (RESAMPLES, len(each))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    middle, low, high = (round(float(figure), 3) for figure in (median(each), low, high))
    return Ratio(middle, low, high, len(each))


def complete(spent: Mapping[str, Mapping[str, Sequence[float]]]) -> bool:
    """Tell whether there were as many rounds, or as many seconds of them, as there should be."""
    wall = [clocks["wall"] for clocks in spent.values()]
    return len(wall[0]) >= ROUNDS or 2 * sum(map(sum, wall)) >= ENOUGH


def least(run: Callable[[], object], times: int = 3) -> float:
    """Return the least seconds of a few runs, by the clock that ratios are judged by."""
    clock = time.process_time if CLOCK == "cpu" else time.perf_counter
    seconds = []
    for _ in range(times):
        began = clock()
        run()
        synchronize(DEVICE)
        seconds.append(clock() - began)
    return min(seconds)


def within(control: Ratio) -> bool:
    """Tell whether the A/A control holds."""
    return abs(control.median - 1) <= CONTROL_TOLERANCE


def conditions(packages: Sequence[str]) -> dict[str, Any]:
    """Return where and with what it was measured."""
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": hardware(DEVICE),
        "driver": _driver(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(LOAD_BEFORE, 2),
        "load": [round(load, 2) for load in os.getloadavg()],
        "load_of_others": round(load_of_others(), 2),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "flags": torch.backends.cpu.get_cpu_capability(),
        "cpu_flags": cpu_flags(CPUINFO.read_text()),
    }


def load_of_others() -> float:
    """Return the load average of the last minute without the one thread that measures."""
    own = 1 - math.exp((BEGAN - time.time()) / FORGETS)
    return max(0.0, os.getloadavg()[0] - own)


def busy(load: float, cores: int) -> bool:
    """Tell whether others use so much of the machine that no figure should be kept."""
    return load > cores / 2


def publish(name: str, result: Mapping[str, Any]) -> str:
    """Keep one run's result as JSON, or print it when the machine was busy; tell where it is."""
    text = json.dumps(result, indent=2)
    load = max(LOAD_BEFORE, load_of_others())
    if busy(load, os.cpu_count() or 1) and os.environ.get(ANYWAY) != "1":
        print(text)
        return f"standard output alone, for a load of {load:.1f} by others; {ANYWAY}=1 keeps it"
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / (f"{name}.json" if DEVICE.type == "cpu" else f"{name}.{DEVICE.type}.json")
    path.write_text(text + "\n")
    return str(path)


def cpu_flags(cpuinfo: str) -> list[str]:
    """Return the flags of the first processor in `cpuinfo` on which kernels' speed depends."""
    for line in cpuinfo.splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return sorted(each for each in flags.split() if each.startswith(UNITS))
    return []


def _cpu() -> str:
    for line in CPUINFO.read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _driver() -> str | None:
    """Return the version of the GPU's driver."""
    if DEVICE.type == "cpu":
        return None
    told = Path("/proc/driver/nvidia/version")
    return told.read_text().splitlines()[0] if told.exists() else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
