"""How often the probe bank supports right and wrong maps of the demo model, and what it costs.

The cost (:mod:`benchmarks.checking`) can be measured anew alone; it keeps the
conditions of its own run::

    python -m benchmarks.trust [images | cost]
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from benchmarks.checking import SUBJECTS, cost
from benchmarks.maps import (
    CLASSES,
    METHODS,
    WRONG,
    Finding,
    Subjects,
    auc,
    findings,
)
from benchmarks.measure import MISSED, RESULTS, conditions, publish
from service.domain.trust import SUPPORTED_TO, WEAK_TO
from workers.measures.bearing import bearings

IMAGES: Final = 200
SEED: Final = 20_261
PROBES: Final = 25

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

COST: Final = "cost"
COST_BAR: Final = 1.1
"""Most that an image's 42 checks may take, its bank among them, by the fastest bare passes."""

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


def result(said: Sequence[Said], shares: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Return everything that is published, but for the cost."""
    pooled = figures(said)
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
        "pooled": pooled,
        "methods": {
            name: figures([each for each in said if each.method == name]) for name in METHODS
        },
        "right_supported_by_class": [
            figures([each for each in said if each.target == target])["right"]["supported"]
            for target in range(CLASSES)
        ],
        "bars": held(pooled),
    }


def costs() -> dict[str, Any]:
    """Return what checking costs, under conditions of its own."""
    return {
        "conditions": conditions(PACKAGES),
        "maps": "14 targets x 3 methods",
        **{name: cost(subject()) for name, subject in SUBJECTS.items()},
    }


def judged_images(count: int) -> dict[str, Any]:
    """Return what was found of the maps of `count` radiographs."""
    workers = os.cpu_count() or 1
    shares = [(SEED + k, count // workers + (k < count % workers)) for k in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        said = [each for found in pool.map(judged, shares) for each in found]
    return result(said, shares)


def main() -> int:
    """Run the bench, or of it the cost alone, and publish its figures."""
    torch.set_num_threads(1)
    asked = sys.argv[1] if len(sys.argv) > 1 else str(IMAGES)
    if asked == COST:
        found = json.loads((RESULTS / "trust.json").read_text())
    else:
        found = judged_images(int(asked))
    found["cost"] = costs()
    ratios = [found["cost"][name]["ratio_to_fastest"] for name in SUBJECTS]
    found["bars"]["cost"] = max(ratios) <= COST_BAR
    for kind, each in found["pooled"].items():
        print(f"{kind:15} AUC {each['auc']:.3f}  supported {each['supported']:.3f}")
    print(found["cost"])
    path = publish("trust", found)
    missed = [name for name, kept in found["bars"].items() if not kept]
    print(f"bars missed: {missed}; written to {path}")
    return MISSED if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
