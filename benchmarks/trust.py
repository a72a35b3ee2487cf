"""How often the probe bank supports right and wrong maps of the demo model, and what it costs.

Cost: the bank through the scheduler and the statistics of 14 targets x 3
methods, interleaved with nothing but the bank's 26 forwards::

    python -m benchmarks.trust [images]
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from benchmarks.maps import (
    CLASSES,
    METHODS,
    SHAPE,
    WRONG,
    Finding,
    Map,
    Subjects,
    auc,
    findings,
    trained,
)
from benchmarks.measure import conditions, publish
from service.domain.grid import Grid
from service.domain.trust import SUPPORTED_TO, WEAK_TO
from workers.measures.bank import Bank, bank
from workers.measures.bearing import agreements, bearings
from workers.running import Planned
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

IMAGES: Final = 200
SEED: Final = 20_261
ROUNDS: Final = 15
PROBES: Final = 25
MAPS: Final = 14 * 3
BATCH: Final = 8
"""Rows of a batch of bare forwards: the fastest size on the machine of the results."""

AUC_BARS: Final = {
    **dict.fromkeys(
        ("blank", "noise", "edge", "random_weights", "wrong_class", "mirrored", "negated"), 0.90
    ),
    **dict.fromkeys(("shifted_16", "random_head"), 0.85),
}
SUPPORTED_BAR: Final = 0.75
"""Least share of right maps to be supported."""

MISTAKEN_BAR: Final = 0.12
MISTAKEN: Final = ("blank", "noise", "edge", "random_weights", "wrong_class", "mirrored")
"""Wrong kinds of which at most `MISTAKEN_BAR` may be supported."""

COST_BAR: Final = 1.1
PACKAGES: Final = ("torch", "numpy")


class Said(NamedTuple):
    """What was found of one map; r is -1 and p is 1 where nothing was measured."""

    method: str
    kind: str
    target: int
    r: float
    p: float
    seconds: float


def judged(share: tuple[int, int]) -> list[Said]:
    """Judge all maps of a share ``(seed, images)``."""
    torch.set_num_threads(1)
    return [each for finding in findings(Subjects(), *share) for each in _judged(finding)]


def _judged(finding: Finding) -> Iterable[Said]:
    drops = finding.bank.drops[:, finding.target]
    score = float(finding.bank.scores[finding.target])
    for method, kinds in finding.maps.items():
        for kind, each in kinds.items():
            began = time.thread_time()
            said = bearings(each.values, each.grid, finding.bank.shape, drops, score)
            spent = time.thread_time() - began
            r, p = (-1.0, 1.0) if said.r is None or said.p is None else (said.r, said.p)
            yield Said(method, kind, finding.target, r, p, spent)


def figures(said: Iterable[Said]) -> dict[str, dict[str, float]]:
    """Return by kind how many maps there are, which share is supported, and the AUC of r."""
    by_kind: dict[str, list[Said]] = {kind: [] for kind in ("right", *WRONG)}
    for each in said:
        by_kind[each.kind].append(each)
    right = [each.r for each in by_kind["right"]]
    return {
        kind: {
            "maps": len(found),
            "supported": _share(each.p <= SUPPORTED_TO for each in found),
            "unsupported": _share(each.p > WEAK_TO for each in found),
            "auc": auc(right, [each.r for each in found]),
        }
        for kind, found in by_kind.items()
    }


def _share(told: Iterable[bool]) -> float:
    return round(float(np.mean(list(told))), 3)


def held(pooled: Mapping[str, Mapping[str, float]]) -> dict[str, bool]:
    """Return whether each bar holds."""
    return {
        "right supported": pooled["right"]["supported"] >= SUPPORTED_BAR,
        **{f"{kind} auc": pooled[kind]["auc"] >= bar for kind, bar in AUC_BARS.items()},
        **{f"{kind} supported": pooled[kind]["supported"] <= MISTAKEN_BAR for kind in MISTAKEN},
    }


def cost(count: int) -> dict[str, float]:
    """Return the least CPU time of bare forwards, and of what checking `MAPS` maps adds, in ms.

    The demo model is the hardest case: the smaller the model, the more the
    statistics weigh. `ratio` is bank and statistics by bare forwards; `r` for
    all other classes is told apart.
    """
    network, shape = trained(), SHAPE
    runtime, scheduler = TorchRuntime(network, shape), Scheduler()
    rows = torch.randn(PROBES + 1, *shape, generator=torch.Generator().manual_seed(1))
    values = rows[: MAPS // 2, :1, ::16, ::16].numpy()
    maps = [Map(each, Grid.partition(each.shape[1:], shape[1:])) for each in values] * 2

    @torch.no_grad()
    def forwards() -> None:
        for batch in rows.split(BATCH):
            network(batch)

    def banked() -> Bank:
        ticket = scheduler.submit("job", runtime, [Planned(bank(rows[0]), PROBES + 1)])
        scheduler.run_until_idle()
        (known,) = ticket.result(0).outcomes
        assert isinstance(known, Bank)
        return known

    known = banked()

    def statistics() -> None:
        for k, each in enumerate(maps):
            drops, score = known.drops[:, k % CLASSES], float(known.scores[k % CLASSES])
            bearings(each.values, each.grid, known.shape, drops, score)

    def other_classes() -> None:
        for each in maps:
            agreements(each.values, each.grid, known.shape, known.drops, known.scores)

    parts: tuple[Callable[[], object], ...] = (forwards, banked, statistics, other_classes)
    spent: dict[str, list[float]] = {each.__name__: [] for each in parts}
    for _ in range(count):
        for part in parts:
            began = time.thread_time()
            part()
            spent[part.__name__].append(1000 * (time.thread_time() - began))
    least = {name: round(min(each), 1) for name, each in spent.items()}
    whole = least["banked"] + least["statistics"]
    return {**least, "ratio": round(whole / least["forwards"], 2)}


def result(
    said: Sequence[Said], shares: Sequence[tuple[int, int]], spent: Mapping[str, float]
) -> dict[str, Any]:
    """Return everything that is published."""
    pooled = figures(said)
    bars = held(pooled)
    bars["cost"] = spent["ratio"] <= COST_BAR
    statistics = [1000 * each.seconds for each in said]
    return {
        "conditions": conditions(PACKAGES),
        "images": sum(images for _, images in shares),
        "shares": [{"seed": seed, "images": images} for seed, images in shares],
        "forwards_per_image": {"probes": PROBES, "clean": 1},
        "statistics_ms": {
            "median": round(median(statistics), 2),
            "p99": round(float(np.percentile(statistics, 99)), 2),
        },
        "cost": spent,
        "pooled": pooled,
        "methods": {
            name: figures([each for each in said if each.method == name]) for name in METHODS
        },
        "right_supported_by_class": [
            figures([each for each in said if each.target == target])["right"]["supported"]
            for target in range(CLASSES)
        ],
        "bars": bars,
    }


def main() -> int:
    """Run the bench and publish its figures."""
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    workers = os.cpu_count() or 1
    shares = [(SEED + k, count // workers + (k < count % workers)) for k in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        said = [each for found in pool.map(judged, shares) for each in found]
    spent = cost(ROUNDS)
    found = result(said, shares, spent)
    for kind, each in found["pooled"].items():
        print(f"{kind:15} AUC {each['auc']:.3f}  supported {each['supported']:.3f}")
    print(f"{MAPS} maps: {spent}")
    path = publish("trust", found)
    missed = [name for name, kept in found["bars"].items() if not kept]
    print(f"bars missed: {missed}; written to {path}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
