"""SmoothGrad at equal error: as many samples as give what 32 independent ones give.

The error is the relative L2 distance to the mean of very many samples, averaged
over images and seeds. captum takes all 32 at once by default, or 8 to a batch. In
bfloat16 ours must reach the same error, and correlate with its own map in float32::

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
    hold,
    loaded,
    unlike,
)
from benchmarks.findings import seen
from benchmarks.integrated import BATCH, LARGE, Question, gradients, smooth
from benchmarks.maps import trained
from benchmarks.networks import ResNet18, seeded
from benchmarks.peers import frozen
from workers.methods.smooth_grad import SmoothGrad
from workers.targets.scalars import ClassLogit

SAMPLES: Final = 32
FEWER: Final = tuple(range(8, SAMPLES + 20, 4))
SEEDS: Final = range(1, 4)
NOISE: Final = 0.15
GRADIENTS_ALIKE: Final = 1e-2
"""Most that the correlation of a gradient in bfloat16 may lack to 1."""

DEFAULT: Final = f"captum ({SAMPLES} at once, default)"
TUNED: Final = f"captum (best batch, {BATCH})"
BARS: Final = {DEFAULT: 3.0, TUNED: 2.2}
PACKAGES: Final = ("torch", "captum", "numpy")


def case(name: str, make: Callable[[], nn.Module], questions: list[Question], many: int) -> Case:
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

    def captums(question: Question, seed: int, batch: int | None) -> Tensor:
        image, target = question
        torch.manual_seed(seed)
        spread = NOISE * (image.max() - image.min()).item()
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

    truths = [ours(question, many, 1_000) for question in questions]

    def mean_error(run: Callable[[Question, int], Tensor]) -> float:
        pairs = zip(questions, truths, strict=True)
        apart = [distance(run(each, seed), truth) for each, truth in pairs for seed in SEEDS]
        return sum(apart) / len(apart)

    allowed = mean_error(lambda question, seed: captums(question, seed, BATCH))

    def enough(served: Own) -> tuple[int, float]:
        """Return as many samples as reach what captum does, and the error with them."""
        return next(
            (each, error)
            for each in FEWER
            if (error := mean_error(lambda q, seed, n=each: ours(q, n, seed, served))) <= allowed
        )

    (samples, reached), (narrow_samples, narrow_reached) = enough(own), enough(narrow)
    first = questions[0]
    runs: dict[str, Run] = {
        OURS: lambda: ours(first, samples, 1),
        DEFAULT: lambda: captums(first, 1, None),
        TUNED: lambda: captums(first, 1, BATCH),
        NARROW: lambda: ours(first, narrow_samples, 1, narrow),
        FLOOR: gradients(net, first, samples),
    }
    errors = {OURS: reached, NARROW: narrow_reached, TUNED: allowed}
    facts = {
        "samples": samples,
        "samples in bfloat16": narrow_samples,
        "captum's samples": SAMPLES,
        "questions": len(questions),
    }
    same = ours(first, SAMPLES, 1)
    limits = {UNLIKE: (unlike(ours(first, SAMPLES, 1, narrow), same), GRADIENTS_ALIKE)}
    return Case(name, runs, BARS, errors, allowed, facts, limits, {NARROW: BARS})


def distance(found: Tensor, truth: Tensor) -> float:
    """Return the relative L2 distance."""
    return ((found - truth).norm() / truth.norm()).item()


def cases() -> Iterator[Case]:
    yield case("demo model", trained, list(seen())[:3], 1024)
    yield case("ResNet-18", lambda: seeded(ResNet18), [(smooth(LARGE), 3)], 384)


def main() -> int:
    torch.set_num_threads(1)
    return hold("smooth", PACKAGES, cases(), int(sys.argv[1]) if len(sys.argv) > 1 else None)


if __name__ == "__main__":
    raise SystemExit(main())
