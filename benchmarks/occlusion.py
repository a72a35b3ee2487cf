"""Occlusion in exact incremental form, and refined from coarse to fine.

Exact: windows of 16 pixels on 224 x 224, against captum with the best number of
windows to a call and with its default of one, and against our own whole rows. With
random weights a window moves the score by less than a hundredth of itself, which
float32 cannot tell well: so the same programs run in float64 first and must give the
scores to 1e-5 of their own range, which is that of the map. In float32, as timed,
they must give them to 1e-5 of their size.
One window in three of each axis is tried, and captum's feature ablation, on which
its occlusion is built, stands for that: its occlusion leaves no gaps. The clean
pass before the windows weighs more here than in a whole map.

Refined: findings that the demo model sees, as few windows as give a map whose rank
correlation with the full one is at least 0.95 on the median image::

    python -m benchmarks.occlusion [rounds]
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from captum.attr import FeatureAblation
from captum.attr import Occlusion as CaptumOcclusion
from torch import Tensor, nn

from benchmarks.contest import (
    ALONE,
    BATCHES,
    EQUAL,
    FLOOR,
    OURS,
    Case,
    Own,
    Run,
    Unmet,
    bare,
    error,
    fewest,
    hold,
    loaded,
    quickest,
)
from benchmarks.findings import seen
from benchmarks.maps import AIR, SHAPE, trained
from benchmarks.measure import DEVICE
from benchmarks.networks import DenseNet121, ResNet18, noise, seeded
from benchmarks.peers import frozen
from benchmarks.resnet50 import resnet50
from workers.methods.base import Maps, cells
from workers.methods.occlusion import Occlusion
from workers.passes import Forward, Plan
from workers.rows import Box, Patched
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import SLICE
from workers.targets.scalars import ClassLogit

WINDOW: Final = 16
STRIDE: Final = 48
"""Five windows along each axis of 224 pixels, the first at the border."""

TARGET: Final = 3
BATCH: Final = 8
"""Rows of the bare model's passes."""

TUNED: Final = "captum (best-tuned)"
DEFAULT: Final = "captum (default)"
WHOLE: Final = "whylight, whole rows"
BRIEF: Final = "whylight, the service's own slices"
PACKAGES: Final = ("torch", "captum", "numpy")

EDGE: Final = 16
FINDINGS: Final = 10
STEP: Final = 4
REFINED: Final = "exact, captum (best-tuned)"
RANKED: Final = 0.95
PERCENTS: Final = (4, 6, 8, 10, 12, 15, 20, 30)
"""Of the windows."""


def boxes(size: int) -> tuple[Box, ...]:
    """Return the windows, row by row."""
    starts = range(0, size - WINDOW + 1, STRIDE)
    return tuple((slice(y, y + WINDOW), slice(x, x + WINDOW)) for y in starts for x in starts)


def falls(image: Tensor, where: Sequence[Box]) -> Plan[Maps]:
    """Ask for the score under each window; one more is captum's, of all that is in none."""
    again = (*where, where[len(where) // 2])
    step = yield Forward(Patched(image, again, 0.0), (ClassLogit(TARGET),))
    side = round(len(where) ** 0.5)
    values = step.scores[:-1].T.reshape(1, 1, side, side)
    return Maps(values, cells(image.shape[1:], (side, side)))


def ours(runtime: TorchRuntime, image: Tensor, slice_seconds: float) -> Run:
    own = Own(runtime, slice_seconds=slice_seconds)
    where = boxes(image.shape[-1])
    # another tensor each time, as each job has: nothing is left from the run before
    return lambda: own.one(falls(image.clone(), where)).values[0, 0]


def captum(net: nn.Module, image: Tensor, together: int) -> Run:
    method, where = FeatureAblation(net), boxes(image.shape[-1])
    mask = torch.full((1, 1, *image.shape[1:]), len(where), device=image.device)
    for number, (rows, columns) in enumerate(where):
        mask[..., rows, columns] = number
    side = round(len(where) ** 0.5)
    corners = [(0, 0, *(each.start for each in box)) for box in where]

    def run() -> Tensor:
        with torch.no_grad():
            values = method.attribute(
                image[None], 0.0, TARGET, feature_mask=mask, perturbations_per_eval=together
            )
            clean = net(image[None])[0, TARGET]
        under = torch.stack([values[corner] for corner in corners]).reshape(side, side)
        fall: Tensor = clean - under
        return fall

    return run


def oracle(net: nn.Module, image: Tensor) -> Tensor:
    """Return the score under each window, row by row, shape ``(side, side)``."""
    where = boxes(image.shape[-1])
    scores = []
    with torch.no_grad():
        for rows, columns in where:
            row = image.clone()
            row[..., rows, columns] = 0.0
            scores.append(net(row[None])[0, TARGET])
    side = round(len(where) ** 0.5)
    return torch.stack(scores).reshape(side, side)


def made(make: type[nn.Module] | None) -> nn.Module:
    """Return a network that no parameter of wants a gradient; a ResNet-50 unless said."""
    return frozen(resnet50() if make is None else seeded(make))


def incremental(net: nn.Module, image: Tensor) -> TorchRuntime:
    """Return the runtime that serves a network and does no more than each window needs."""
    runtime = loaded(net, image.shape)
    # else this compares nothing
    assert runtime._incremental or DEVICE.type != "cpu"  # noqa: SLF001
    return runtime


def exact(name: str, make: type[nn.Module] | None, bar: float) -> Case:
    net, precise = made(make), made(make).double()
    image = noise((3, 224, 224))
    runtime, whole = incremental(net, image), loaded(net, image.shape)
    whole.__dict__["_incremental"] = None
    best = quickest(lambda together: captum(net, image, together)(), BATCHES)
    runs = {
        OURS: ours(runtime, image, ALONE),
        TUNED: captum(net, image, best),
        DEFAULT: captum(net, image, 1),
        WHOLE: ours(whole, image, ALONE),
        BRIEF: ours(runtime, image, SLICE),
        FLOOR: bare(net, image.expand(BATCH, -1, -1, -1).clone(), len(boxes(224)) // BATCH),
    }
    expected = oracle(precise, image.double())
    in_float64 = {
        OURS: ours(incremental(precise, image), image.double(), ALONE)(),
        TUNED: captum(precise, image.double(), best)(),
    }
    gates = {
        f"{each}, in float64": (error(values, expected), EQUAL)
        for each, values in in_float64.items()
    }
    largest = expected.abs().max()
    in_float32 = {each: runs[each]() for each in list(runs)[:5]}
    errors = {
        each: ((values - expected).abs().max() / largest).item()
        for each, values in in_float32.items()
    }
    facts = {
        "windows": len(boxes(224)),
        "captum's windows a call": best,
        "of the score's size": "errors",
        "map's range, of the score's size": ((expected.max() - expected.min()) / largest).item(),
        "in float32, of the map's range": error(in_float32[OURS], expected),
    }
    return Case(name, runs, {TUNED: bar, WHOLE: bar}, errors, gates=gates, facts=facts)


def refined() -> Case | Unmet:
    """Refine on the demo model, against the exact map at captum's best."""
    net = frozen(trained())
    own = Own(loaded(net, SHAPE), slice_seconds=ALONE)
    full = Occlusion(window=EDGE, stride=STEP, baseline=AIR)
    asked = [(image, (ClassLogit(output),)) for image, output in list(seen())[:FINDINGS]]
    known = [(image, target, own.one(full.plan(image, target)).values) for image, target in asked]

    def coarse(percent: int) -> Occlusion:
        return Occlusion(window=EDGE, stride=STEP, baseline=AIR, refine=percent / 100)

    def ranks(percent: int) -> list[float]:
        method = coarse(percent)
        return sorted(
            spearman(own.one(method.plan(image, target)).values, truth)
            for image, target, truth in known
        )

    found = fewest(PERCENTS, lambda n: 1 - ranks(n)[len(known) // 2], 1 - RANKED)
    if found is None:
        return Unmet("demo model, refined", "windows")
    percent, apart = found
    method = coarse(percent)
    image, target, truth = known[0]
    peer = CaptumOcclusion(net)

    def captums(together: int) -> Tensor:
        window, stride = (1, EDGE, EDGE), (1, STEP, STEP)
        index = target[0].index
        values: Tensor = peer.attribute(
            image[None], window, stride, AIR, index, perturbations_per_eval=together
        )
        return values

    best = quickest(captums)
    runs: dict[str, Run] = {
        OURS: lambda: own.one(method.plan(image.clone(), target)),
        REFINED: lambda: captums(best),
        "whylight, every window": lambda: own.one(full.plan(image.clone(), target)),
    }
    facts = {
        "share of windows": percent / 100,
        "captum's windows a call": best,
        "spearman, median": round(1 - apart, 3),
        "spearman, least": round(ranks(percent)[0], 3),
        "findings": len(known),
    }
    # captum's map adds up what ours averages: alike only where as many windows cover a place
    inside = slice(EDGE // STEP, -EDGE // STEP)
    cells_of = captums(best)[0, 0, STEP // 2 :: STEP, STEP // 2 :: STEP][inside, inside]
    errors = {"whylight, 1 - spearman": apart, REFINED: 1 - _like(truth, cells_of, inside)}
    return Case("demo model, refined", runs, {REFINED: 8.0}, errors, 1 - RANKED, facts=facts)


def _like(truth: Tensor, other: Tensor, inside: slice) -> float:
    return spearman(truth[0, 0][inside, inside], other)


def spearman(found: Tensor, truth: Tensor) -> float:
    """Return the rank correlation of two maps."""
    ranks = torch.stack([each.flatten().argsort().argsort().double() for each in (found, truth)])
    return torch.corrcoef(ranks)[0, 1].item()


def cases() -> Iterator[Case | Unmet]:
    yield refined()
    yield exact("ResNet-18", ResNet18, 2.0)
    yield exact("ResNet-50", None, 2.0)
    yield exact("DenseNet-121", DenseNet121, 1.3)


def main() -> int:
    torch.set_num_threads(1)
    return hold("occlusion", PACKAGES, cases(), int(sys.argv[1]) if len(sys.argv) > 1 else None)


if __name__ == "__main__":
    raise SystemExit(main())
