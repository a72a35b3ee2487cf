"""Integrated gradients to a completeness error of at most 2 %.

The error is that of the map's sum, as a share of the change in score; both are
found here, from the map's values and from the bare model in float64. The map itself
is held against captum's of very many steps. Ours starts with few points and adds
some where the path needs them until the error is met. captum takes the number it is
given. By default that is 50 all at once, where 50 meet the error for every image
asked, else the least that do. At its best it is the least that do, which one would
have to know beforehand, in the batch that suits it best. Beside them: its 50 even
where they miss the error. A run explains three images, which took ours a quarter,
half and three quarters of the way from the fewest points to the most::

    python -m benchmarks.integrated [rounds]
"""

import sys
from collections.abc import Callable, Iterator
from typing import Final

import torch
from captum.attr import IntegratedGradients as Captum
from torch import Tensor, nn

from benchmarks.contest import (
    ALONE,
    BATCHES,
    FLOOR,
    OURS,
    Case,
    Own,
    Run,
    Unmet,
    fewest,
    hold,
    loaded,
    quickest,
)
from benchmarks.findings import seen
from benchmarks.maps import AIR, trained
from benchmarks.networks import ResNet18, noise, seeded
from benchmarks.peers import frozen
from workers.methods.base import Maps
from workers.methods.integrated_gradients import IntegratedGradients
from workers.targets.scalars import ClassLogit

TOLERANCE: Final = 0.02
STEPS: Final = 50
FEWER: Final = (4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256)
FINE: Final = 320
"""Steps of the map that stands for the truth."""

FAR: Final = 0.3
"""Most that a map may be apart from it, relative L2 distance: a correlation of about 0.95.

Completeness bounds the sum and not the map, which few points tell less well.
"""

FINDINGS: Final = 8
DEFAULT: Final = "captum (steps that suffice, at once)"
TUNED: Final = "captum (fewest steps, best batch)"
USUAL: Final = f"captum ({STEPS} steps, best batch)"
BARS: Final = {DEFAULT: 4.0, TUNED: 2.0}
PACKAGES: Final = ("torch", "captum", "numpy")
BATCH: Final = 8
LARGE: Final = (3, 160, 160)
"""Of the network with random weights."""

Question = tuple[Tensor, int]
"""An image and the output that is explained."""


def case(
    name: str,
    make: Callable[[], nn.Module],
    questions: list[Question],
    baseline: float,
) -> Case | Unmet:
    """Compare on up to three questions; errors are those of all."""
    net, precise = frozen(make()), frozen(make()).double()
    own = Own(loaded(net, questions[0][0].shape), slice_seconds=ALONE)
    method = IntegratedGradients(tolerance=TOLERANCE, baseline=baseline)
    captum = Captum(net)

    def ours(question: Question) -> Maps:
        image, target = question
        return own.one(method.plan(image, (ClassLogit(target),)))

    def captums(question: Question, steps: int, batch: int) -> Tensor:
        image, target = question
        values: Tensor = captum.attribute(
            image[None], baseline, target, n_steps=steps, internal_batch_size=batch
        )
        return values[0].detach()

    changes = [change(precise, question, baseline) for question in questions]

    def worst(run: Callable[[Question], Tensor]) -> float:
        """Return the largest error of the sum."""
        pairs = zip(questions, changes, strict=True)
        return max(abs(run(each).double().sum().item() / change - 1) for each, change in pairs)

    found = fewest(FEWER, lambda n: worst(lambda q: captums(q, n, BATCH)), TOLERANCE)
    if found is None:
        return Unmet(name, "captum's steps")
    steps, reached = found
    enough = max(STEPS, steps)
    maps = [ours(question) for question in questions]
    taken = [int(each.extras[0]["steps"]) for each in maps]
    values = iter(maps)
    errors = {OURS: worst(lambda _: next(values).values[0]), TUNED: reached}
    order = sorted(range(len(questions)), key=taken.__getitem__)
    chosen = [order[len(order) * part // 4] for part in (1, 2, 3)] if len(order) > 1 else order
    timed = [(questions[each], taken[each]) for each in chosen]
    fine = [captums(question, FINE, BATCH) for question, _ in timed]

    def farthest(run: Callable[[Question], Tensor]) -> float:
        """Return the largest distance from the map of very many steps."""
        pairs = zip(timed, fine, strict=True)
        return max(distance(run(question), truth) for (question, _), truth in pairs)

    def each_of(run: Callable[[Question], object]) -> Run:
        return lambda: [run(question) for question, _ in timed]

    best = quickest(
        lambda batch: captums(timed[0][0], steps, batch),
        sorted({min(each, steps) for each in (*BATCHES, steps)}),
    )
    runs: dict[str, Run] = {
        OURS: each_of(ours),
        DEFAULT: each_of(lambda question: captums(question, enough, enough)),
        TUNED: each_of(lambda question: captums(question, steps, best)),
        FLOOR: lambda: [gradients(net, *each)() for each in timed],
    }
    if steps > STEPS:
        runs[USUAL] = each_of(lambda question: captums(question, STEPS, best))
    facts = {
        "questions": len(questions),
        "gradients, all": sorted(taken),
        "captum's steps": enough,
        "captum's fewest steps": steps,
        "captum's batch": best,
        f"captum's worst error at {STEPS} steps": round(
            worst(lambda question: captums(question, STEPS, BATCH)), 4
        ),
        "captum's map with the fewest steps, distance": round(
            farthest(lambda question: captums(question, steps, BATCH)), 4
        ),
    }
    gates = {
        f"to {FINE} steps, distance": (farthest(lambda question: ours(question).values[0]), FAR)
    }
    return Case(name, runs, BARS, errors, TOLERANCE, gates, facts)


def change(net: nn.Module, question: Question, baseline: float) -> float:
    """Return how far the bare model's score rises from the baseline to the image."""
    image, target = question[0].double(), question[1]
    with torch.no_grad():
        end, start = net(torch.stack([image, torch.full_like(image, baseline)]))[:, target]
    return float(end - start)


def distance(found: Tensor, truth: Tensor) -> float:
    """Return the relative L2 distance."""
    return float((found - truth).norm() / truth.norm())


def gradients(net: nn.Module, question: Question, count: int) -> Run:
    """Return as many bare gradients as ours took, in batches."""
    image, target = question

    def run() -> None:
        for start in range(0, count, BATCH):
            rows = min(BATCH, count - start)
            batch = image.expand(rows, *image.shape).clone().requires_grad_()
            torch.autograd.grad(net(batch)[:, target].sum(), [batch])

    return run


def smooth(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return an image without pixel noise, as a radiograph is."""
    coarse = noise((shape[0], 14, 14), seed)[None]
    fine = torch.nn.functional.interpolate(coarse, shape[1:], mode="bicubic")
    image: Tensor = fine[0]
    return image


def demo_model() -> Case | Unmet:
    return case("demo model", trained, list(seen())[:FINDINGS], AIR)


def large() -> Case | Unmet:
    questions = [(smooth(LARGE, seed), 3) for seed in range(FINDINGS)]
    return case("ResNet-18", lambda: seeded(ResNet18), questions, 0.0)


def cases() -> Iterator[Case | Unmet]:
    yield demo_model()
    yield large()


def main() -> int:
    torch.set_num_threads(1)
    return hold("integrated", PACKAGES, cases(), int(sys.argv[1]) if len(sys.argv) > 1 else None)


if __name__ == "__main__":
    raise SystemExit(main())
