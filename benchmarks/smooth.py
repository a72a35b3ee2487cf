"""SmoothGrad at equal error: as many samples as give what 32 independent ones give.

The error is the relative L2 distance to the mean of very many samples, averaged
over images and seeds. That mean is neither ours nor captum's: plain gradients in
float64, under noise drawn here. Nothing is timed before ours of as many samples is
no farther from it than its two halves are from each other. captum takes all 32 at
once by default, or as many as suit it best. In bfloat16 ours must reach the same
error, and correlate with its own map in float32::

    python -m benchmarks.smooth [rounds]
"""

import sys
from collections.abc import Callable, Iterator
from typing import Final

import torch
from captum.attr import NoiseTunnel
from captum.attr import Saliency as CaptumSaliency
from torch import Tensor, nn

from benchmarks.contest import (
    ALONE,
    FLOOR,
    NARROW,
    OURS,
    UNLIKE,
    Case,
    Own,
    Run,
    Unmet,
    fewest,
    hold,
    loaded,
    quickest,
    unlike,
)
from benchmarks.findings import seen
from benchmarks.integrated import LARGE, Question, distance, gradients, smooth
from benchmarks.maps import trained
from benchmarks.networks import ResNet18, seeded
from benchmarks.peers import frozen
from workers.methods.smooth_grad import SmoothGrad
from workers.targets.scalars import ClassLogit

SAMPLES: Final = 32
FEWER: Final = tuple(range(12, SAMPLES + 20, 4))
BATCH: Final = 8
"""Rows of the truth's gradients to a pass."""

SEEDS: Final = range(1, 4)
NOISE: Final = 0.15
GRADIENTS_ALIKE: Final = 1e-2
"""Most that the correlation of a gradient in bfloat16 may lack to 1."""

DEFAULT: Final = f"captum ({SAMPLES} at once, default)"
TUNED: Final = "captum (best batch)"
BARS: Final = {DEFAULT: 3.0, TUNED: 2.2}
PACKAGES: Final = ("torch", "captum", "numpy")


def case(
    name: str, make: Callable[[], nn.Module], questions: list[Question], many: int
) -> Case | Unmet:
    """Find how many samples ours needs, and compare on the first question.

    Parameters
    ----------
    many
        Samples of the mean that stands for the truth.
    """
    net = frozen(make())
    runtime = loaded(net, questions[0][0].shape)
    own = Own(runtime, slice_seconds=ALONE)
    narrow = Own(runtime.recast(torch.bfloat16), slice_seconds=ALONE)
    captum = NoiseTunnel(CaptumSaliency(net))

    def ours(question: Question, samples: int, seed: int, served: Own = own) -> Tensor:
        image, target = question
        method = SmoothGrad(samples=samples, seed=seed, noise=NOISE)
        return served.one(method.plan(image, (ClassLogit(target),))).values[0]

    def captums(question: Question, seed: int, batch: int) -> Tensor:
        image, target = question
        torch.manual_seed(seed)
        spread = deviation(image)
        values: Tensor = captum.attribute(
            image[None],
            nt_type="smoothgrad",
            nt_samples=SAMPLES,
            nt_samples_batch_size=batch,
            stdevs=spread,
            target=target,
            abs=False,
        )
        return values[0].detach()

    precise = frozen(make()).double()
    halves = [mean_gradients(precise, question, many) for question in questions]
    truths = [(one + other) / 2 for one, other in halves]
    apart = max(
        distance(ours(question, many, 1_000), truth)
        for question, truth in zip(questions, truths, strict=True)
    )
    gates = {f"ours of {many} samples": (apart, max(distance(*pair) for pair in halves))}

    def mean_error(run: Callable[[Question, int], Tensor]) -> float:
        pairs = zip(questions, truths, strict=True)
        errors = [distance(run(each, seed), truth) for each, truth in pairs for seed in SEEDS]
        return sum(errors) / len(errors)

    first = questions[0]
    best = quickest(lambda batch: captums(first, 1, batch))
    allowed = mean_error(lambda question, seed: captums(question, seed, best))

    def enough(served: Own) -> tuple[int, float] | None:
        """Return as many samples as reach what captum does, and the error with them."""
        return fewest(
            FEWER, lambda n: mean_error(lambda q, seed: ours(q, n, seed, served)), allowed
        )

    found, found_narrow = enough(own), enough(narrow)
    if found is None or found_narrow is None:
        return Unmet(name, "samples" if found is None else "samples in bfloat16")
    (samples, reached), (narrow_samples, narrow_reached) = found, found_narrow
    runs: dict[str, Run] = {
        OURS: lambda: ours(first, samples, 1),
        DEFAULT: lambda: captums(first, 1, SAMPLES),
        TUNED: lambda: captums(first, 1, best),
        NARROW: lambda: ours(first, narrow_samples, 1, narrow),
        FLOOR: gradients(net, first, samples),
    }
    errors = {OURS: reached, NARROW: narrow_reached, TUNED: allowed}
    facts = {
        "samples": samples,
        "samples in bfloat16": narrow_samples,
        "captum's samples": SAMPLES,
        "captum's batch": best,
        "questions": len(questions),
    }
    same = ours(first, SAMPLES, 1)
    limits = {UNLIKE: (unlike(ours(first, SAMPLES, 1, narrow), same), GRADIENTS_ALIKE)}
    return Case(name, runs, BARS, errors, allowed, gates, facts, limits, {NARROW: BARS})


def deviation(image: Tensor) -> float:
    """Return the noise that the paper takes, a share of the image's range."""
    return NOISE * (image.max() - image.min()).item()


def mean_gradients(net: nn.Module, question: Question, many: int) -> tuple[Tensor, Tensor]:
    """Return two means of plain gradients in float64, each of half of the samples."""
    image, target = question
    random = torch.Generator().manual_seed(7)
    means = []
    for _ in range(2):
        total = torch.zeros_like(image, dtype=torch.float64)
        for _ in range(many // 2 // BATCH):
            noise = torch.randn(
                BATCH, *image.shape, dtype=torch.float64, generator=random
            ) * deviation(image)
            batch = (image + noise.to(image.device)).requires_grad_()
            (slopes,) = torch.autograd.grad(net(batch)[:, target].sum(), [batch])
            total += slopes.sum(0)
        means.append(total / (many // 2))
    return means[0], means[1]


def cases() -> Iterator[Case | Unmet]:
    yield case("demo model", trained, list(seen())[:3], 1024)
    yield case("ResNet-18", lambda: seeded(ResNet18), [(smooth(LARGE, 1), 3)], 384)


def main() -> int:
    torch.set_num_threads(1)
    return hold("smooth", PACKAGES, cases(), int(sys.argv[1]) if len(sys.argv) > 1 else None)


if __name__ == "__main__":
    raise SystemExit(main())
