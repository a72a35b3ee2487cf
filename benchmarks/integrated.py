"""Integrated gradients to a completeness error of at most 2 %.

The error is that of the map's sum, as a share of the change in score. Ours starts
with few points and adds some where the path needs them until the error is met.
captum takes the number it is given: its default of 50 where that meets the error
for every image asked, else the least that does, all at once as by default or in the
batches that suit it best. Beside them: its 50 even where they miss the error, and
the least that does, which one would have to know beforehand. A run explains three
images, which took ours a quarter, half and three quarters of the way from the
fewest points to the most::

    python -m benchmarks.integrated [rounds]
"""

import sys
from collections.abc import Callable, Iterator
from typing import Final

import torch
from captum.attr import IntegratedGradients as Captum
from torch import Tensor, nn

from benchmarks.contest import ALONE, FLOOR, OURS, Case, Own, Run, hold, loaded
from benchmarks.findings import seen
from benchmarks.maps import AIR, trained
from benchmarks.networks import ResNet18, noise, seeded
from benchmarks.peers import frozen
from workers.methods.integrated_gradients import IntegratedGradients
from workers.targets.scalars import ClassLogit

TOLERANCE: Final = 0.02
STEPS: Final = 50
FEWER: Final = (6, 10, 16, 25, 40, 50, 64, 80, 100, 128, 160, 200, 256)
FINDINGS: Final = 8
DEFAULT: Final = "captum (steps that suffice, at once)"
TUNED: Final = "captum (steps that suffice, best batch)"
USUAL: Final = f"captum ({STEPS} steps, best batch)"
LEAST: Final = "captum (fewest steps, best batch)"
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
) -> Case:
    """Compare on up to three questions; errors are those of all."""
    net = frozen(make())
    own = Own(loaded(net, questions[0][0].shape), slice_seconds=ALONE)
    method = IntegratedGradients(tolerance=TOLERANCE, baseline=baseline)
    captum = Captum(net)

    def ours(question: Question) -> tuple[float, float]:
        image, target = question
        (extra,) = own.one(method.plan(image, (ClassLogit(target),))).extras
        return abs(extra["residual"] / extra["score_change"]), extra["steps"]

    def captums(question: Question, steps: int, batch: int | None) -> float:
        image, target = question
        values, delta = captum.attribute(
            image[None],
            baseline,
            target,
            n_steps=steps,
            internal_batch_size=batch,
            return_convergence_delta=True,
        )
        change = values.sum() - delta[0]
        return abs(delta[0].item() / change.item())

    fewest = next(
        each for each in FEWER if all(captums(q, each, BATCH) <= TOLERANCE for q in questions)
    )
    enough = max(STEPS, fewest)
    own_errors, taken = zip(*map(ours, questions), strict=True)
    errors = {OURS: max(own_errors), TUNED: max(captums(q, enough, BATCH) for q in questions)}
    order = sorted(range(len(questions)), key=taken.__getitem__)
    chosen = [order[len(order) * part // 4] for part in (1, 2, 3)] if len(order) > 1 else order
    timed = [(questions[each], int(taken[each])) for each in chosen]

    def each_of(run: Callable[[Question], object]) -> Run:
        return lambda: [run(question) for question, _ in timed]

    runs: dict[str, Run] = {
        OURS: each_of(ours),
        DEFAULT: each_of(lambda question: captums(question, enough, None)),
        TUNED: each_of(lambda question: captums(question, enough, BATCH)),
        FLOOR: lambda: [gradients(net, *each)() for each in timed],
    }
    if fewest < STEPS:
        runs[LEAST] = each_of(lambda question: captums(question, fewest, BATCH))
    elif fewest > STEPS:
        runs[USUAL] = each_of(lambda question: captums(question, STEPS, BATCH))
    worst = max(captums(question, STEPS, BATCH) for question in questions)
    facts = {
        "questions": len(questions),
        "gradients, all": sorted(taken),
        "captum's steps": enough,
        "captum's fewest steps": fewest,
        f"captum's worst error at {STEPS} steps": round(worst, 4),
    }
    return Case(name, runs, BARS, errors, TOLERANCE, facts)


def gradients(net: nn.Module, question: Question, count: int) -> Run:
    """Return as many bare gradients as ours took, in batches."""
    image, target = question

    def run() -> None:
        for start in range(0, count, BATCH):
            rows = min(BATCH, count - start)
            batch = image.expand(rows, *image.shape).clone().requires_grad_()
            torch.autograd.grad(net(batch)[:, target].sum(), [batch])

    return run


def smooth(shape: tuple[int, ...]) -> Tensor:
    """Return an image without pixel noise, as a radiograph is."""
    coarse = noise((shape[0], 14, 14))[None]
    fine = torch.nn.functional.interpolate(coarse, shape[1:], mode="bicubic")
    image: Tensor = fine[0]
    return image


def demo_model() -> Case:
    return case("demo model", trained, list(seen())[:FINDINGS], AIR)


def large() -> Case:
    questions = [(smooth(LARGE), 3)]
    return case("ResNet-18", lambda: seeded(ResNet18), questions, 0.0)


def cases() -> Iterator[Case]:
    yield demo_model()
    yield large()


def main() -> int:
    torch.set_num_threads(1)
    return hold("integrated", PACKAGES, cases(), int(sys.argv[1]) if len(sys.argv) > 1 else None)


if __name__ == "__main__":
    raise SystemExit(main())
