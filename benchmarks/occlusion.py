"""Occlusion in exact incremental form, and refined from coarse to fine.

Exact: windows of 16 pixels on 224 x 224, against captum with the best number of
windows to a call and with its default of one, and against our own whole rows.
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

from benchmarks.contest import ALONE, FLOOR, OURS, Case, Own, Run, bare, hold, loaded
from benchmarks.findings import seen
from benchmarks.maps import AIR, SHAPE, trained
from benchmarks.measure import DEVICE
from benchmarks.networks import DenseNet121, ResNet18, noise, seeded
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
TUNED: Final = f"captum ({BATCH} a call, best-tuned)"
DEFAULT: Final = "captum (default)"
WHOLE: Final = "whylight, whole rows"
BRIEF: Final = "whylight, the service's own slices"
PACKAGES: Final = ("torch", "captum", "numpy")

EDGE: Final = 16
FINDINGS: Final = 10
STEP: Final = 4
TOGETHER: Final = 16
"""Windows to a call of captum's at which it is quickest on the small demo model."""

REFINED: Final = "exact, captum (best-tuned)"
RANKED: Final = 0.95
SHARES: Final = (0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3)


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
    for number, box in enumerate(where):
        mask[(..., *box)] = number
    side = round(len(where) ** 0.5)
    corners = [(0, 0, *(each.start for each in box)) for box in where]

    def run() -> Tensor:
        with torch.no_grad():
            values = method.attribute(
                image[None], 0.0, TARGET, feature_mask=mask, perturbations_per_eval=together
            )
            clean = net(image[None])[0, TARGET]
        return clean - torch.stack([values[corner] for corner in corners]).reshape(side, side)

    return run


def oracle(net: nn.Module, image: Tensor) -> Tensor:
    """Return the score under each window in float64, shape ``(side, side)``."""
    where = boxes(image.shape[-1])
    scores = []
    with torch.no_grad():
        for box in where:
            row = image.clone()
            row[(..., *box)] = 0.0
            scores.append(net(row[None])[0, TARGET])
    side = round(len(where) ** 0.5)
    return torch.stack(scores).reshape(side, side)


def exact(name: str, make: type[nn.Module] | None, bar: float) -> Case:
    net = (resnet50() if make is None else seeded(make)).requires_grad_(requires_grad=False)
    image = noise((3, 224, 224))
    expected = oracle((resnet50() if make is None else seeded(make)).double(), image.double())
    runtime, whole = loaded(net, image.shape), loaded(net, image.shape)
    assert runtime._incremental or DEVICE.type != "cpu"  # noqa: SLF001 - else this compares nothing
    whole.__dict__["_incremental"] = None
    runs = {
        OURS: ours(runtime, image, ALONE),
        TUNED: captum(net, image, BATCH),
        DEFAULT: captum(net, image, 1),
        WHOLE: ours(whole, image, ALONE),
        BRIEF: ours(runtime, image, SLICE),
        FLOOR: bare(net, image.expand(BATCH, -1, -1, -1).clone(), len(boxes(224)) // BATCH),
    }
    # scores, not falls: those of random weights are a hundred thousandth of the score
    largest = expected.abs().max()
    errors = {
        each: ((runs[each]() - expected).abs().max() / largest).item() for each in list(runs)[:5]
    }
    facts = {"windows": len(boxes(224)), "of the score's size": "errors"}
    return Case(name, runs, {TUNED: bar, WHOLE: bar}, errors, facts=facts)


def refined() -> Case:
    """Refine on the demo model, against the exact map at captum's best."""
    net = trained().requires_grad_(requires_grad=False)
    own = Own(loaded(net, SHAPE), slice_seconds=ALONE)
    full = Occlusion(window=EDGE, stride=STEP, baseline=AIR)
    asked = [(image, (ClassLogit(output),)) for image, output in list(seen())[:FINDINGS]]
    known = [(image, target, own.one(full.plan(image, target)).values) for image, target in asked]
    for share in SHARES:
        method = Occlusion(window=EDGE, stride=STEP, baseline=AIR, refine=share)
        ranks = sorted(
            spearman(own.one(method.plan(image, target)).values, truth)
            for image, target, truth in known
        )
        middle = ranks[len(ranks) // 2]
        if middle >= RANKED:
            break
    image, target, truth = known[0]
    peer = CaptumOcclusion(net)

    def captums() -> Tensor:
        window, stride = (1, EDGE, EDGE), (1, STEP, STEP)
        index = target[0].index
        values: Tensor = peer.attribute(
            image[None], window, stride, AIR, index, perturbations_per_eval=TOGETHER
        )
        return values

    runs: dict[str, Run] = {
        OURS: lambda: own.one(method.plan(image.clone(), target)),
        REFINED: captums,
        "whylight, every window": lambda: own.one(full.plan(image.clone(), target)),
    }
    facts = {
        "share of windows": share,
        "spearman, median": round(middle, 3),
        "spearman, least": round(ranks[0], 3),
        "findings": len(known),
    }
    # captum's map adds up what ours averages: alike only where as many windows cover a place
    inside = slice(EDGE // STEP, -EDGE // STEP)
    cells_of = captums()[0, 0, STEP // 2 :: STEP, STEP // 2 :: STEP][inside, inside]
    errors = {"whylight, 1 - spearman": 1 - middle, REFINED: 1 - _like(truth, cells_of, inside)}
    return Case("demo model, refined", runs, {REFINED: 8.0}, errors, 1 - RANKED, facts)


def _like(truth: Tensor, other: Tensor, inside: slice) -> float:
    return spearman(truth[0, 0][inside, inside], other)


def spearman(found: Tensor, truth: Tensor) -> float:
    """Return the rank correlation of two maps."""
    ranks = torch.stack([each.flatten().argsort().argsort().double() for each in (found, truth)])
    return torch.corrcoef(ranks)[0, 1].item()


def cases() -> Iterator[Case]:
    yield refined()
    yield exact("ResNet-18", ResNet18, 2.0)
    yield exact("ResNet-50", None, 2.0)
    yield exact("DenseNet-121", DenseNet121, 1.3)


def main() -> int:
    torch.set_num_threads(1)
    return hold("occlusion", PACKAGES, cases(), int(sys.argv[1]) if len(sys.argv) > 1 else None)


if __name__ == "__main__":
    raise SystemExit(main())
