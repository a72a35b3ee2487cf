"""RISE at equal error: as many masks as give what 512 independent ones give.

The error is one less the correlation with a map of very many independent masks,
averaged over findings of the demo model. The reference recipe enlarges masks one
by one with scikit-image, as the paper's own script does; at its best they are
enlarged together. Masks of ours may take at most one percent of its time::

    python -m benchmarks.rise [rounds]

Petsiuk, Das, Saenko (2018). RISE: randomized input sampling for explanation of
black-box models. BMVC. arXiv:1806.07421.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.contest import (
    ALONE,
    FLOOR,
    OURS,
    Case,
    Own,
    Run,
    Unmet,
    bare,
    fewest,
    hold,
    loaded,
)
from benchmarks.findings import seen
from benchmarks.maps import AIR, SHAPE, trained
from benchmarks.measure import least
from benchmarks.peers import frozen
from workers.methods.rise import Lattice, Rise
from workers.targets.scalars import ClassLogit

MASKS: Final = 512
FEWER: Final = tuple(range(64, MASKS + 1, 32))
MANY: Final = 4096
FINDINGS: Final = 3
CELLS: Final = 8
"""Of the recipe along each axis; their centers lie as far apart as our nodes."""

SHOWN: Final = 0.5
BATCH: Final = 16
DEFAULT: Final = "the paper's recipe"
TUNED: Final = "its masks made together"
BARS: Final = {DEFAULT: 2.3}
MASKING: Final = "masks, share of the time"
PACKAGES: Final = ("torch", "scikit-image", "numpy")

Masks = Callable[[np.random.Generator, int, int], Tensor]


def one_by_one(random: np.random.Generator, count: int, size: int) -> Tensor:
    """Return masks ``(count, 1, size, size)`` as the paper's script makes them."""
    from skimage import transform  # noqa: PLC0415 - for one peer

    resize: Callable[..., Any] = transform.resize
    cell = -(-size // CELLS)
    coarse = random.random((count, CELLS, CELLS)) < SHOWN
    made = np.empty((count, size, size), np.float32)
    for number, grid in enumerate(coarse.astype("float32")):
        down, right = random.integers(0, cell, 2)
        whole = (CELLS + 1) * cell
        fine = resize(grid, (whole, whole), order=1, mode="reflect", anti_aliasing=False)
        made[number] = fine[down : down + size, right : right + size]
    return torch.from_numpy(made)[:, None]


def together(random: np.random.Generator, count: int, size: int) -> Tensor:
    """Return masks of the same kind, enlarged at once."""
    cell = -(-size // CELLS)
    coarse = torch.from_numpy((random.random((count, 1, CELLS, CELLS)) < SHOWN).astype("float32"))
    fine = functional.interpolate(coarse, ((CELLS + 1) * cell,) * 2, mode="bilinear")
    shifts = random.integers(0, cell, (count, 2))
    return torch.stack(
        [
            each[:, down : down + size, right : right + size]
            for each, (down, right) in zip(fine, shifts, strict=True)
        ]
    )


def recipe(
    net: nn.Module, image: Tensor, target: int, masks: Masks, *, count: int, seed: int
) -> Tensor:
    """Return the paper's map, eq. 6, shape ``(size, size)``."""
    random, size = np.random.default_rng(seed), image.shape[-1]
    total = torch.zeros(size, size, device=image.device)
    every = masks(random, count, size).to(image.device)
    with torch.no_grad():
        for part in every.split(BATCH):
            scores = net(AIR + part * (image - AIR))[:, target]
            total += torch.tensordot(scores, part[:, 0], dims=1)
    return total / (count * SHOWN)


def case() -> Case | Unmet:
    net = frozen(trained())
    own = Own(loaded(net, SHAPE), slice_seconds=ALONE)
    questions = list(seen())[:FINDINGS]

    def ours(image: Tensor, target: int, masks: int) -> Tensor:
        method = Rise(samples=masks, baseline=AIR, cells=CELLS - 1)
        values = own.one(method.plan(image, (ClassLogit(target),))).values
        fine: Tensor = functional.interpolate(values, image.shape[1:], mode="bilinear")[0, 0]
        return fine

    truths = [recipe(net, *question, together, count=MANY, seed=99) for question in questions]

    def mean_error(run: Callable[[Tensor, int], Tensor]) -> float:
        pairs = zip(questions, truths, strict=True)
        return sum(1 - correlation(run(*each), truth) for each, truth in pairs) / len(truths)

    def tuned(image: Tensor, target: int) -> Tensor:
        return recipe(net, image, target, together, count=MASKS, seed=1)

    allowed = mean_error(tuned)
    found = fewest(FEWER, lambda n: mean_error(partial(ours, masks=n)), allowed)
    if found is None:
        return Unmet("demo model", "masks")
    masks, reached = found
    image, target = questions[0]
    runs: dict[str, Run] = {
        OURS: lambda: ours(image, target, masks),
        DEFAULT: lambda: recipe(net, image, target, one_by_one, count=MASKS, seed=1),
        TUNED: lambda: tuned(image, target),
        FLOOR: bare(net, image.expand(BATCH, -1, -1, -1).clone(), masks // BATCH),
    }
    facts = {"masks": masks, "the recipe's masks": MASKS, "findings": len(questions)}
    share = masking(image, masks) / least(runs[OURS])
    return Case(
        "demo model",
        runs,
        BARS,
        {OURS: reached, TUNED: allowed},
        allowed,
        facts=facts,
        limits={MASKING: (round(share, 4), 0.01)},
    )


def masking(image: Tensor, masks: int) -> float:
    """Return the seconds in which all masks are made, batch by batch."""
    lattice = Lattice(image, CELLS - 1, 0)

    def run() -> None:
        for start in range(0, masks, BATCH):
            lattice.masks(start, min(start + BATCH, masks))

    return least(run)


def correlation(found: Tensor, truth: Tensor) -> float:
    """Return Pearson's r of two maps."""
    return torch.corrcoef(torch.stack([found.flatten(), truth.flatten()]))[0, 1].item()


def cases() -> Iterator[Case | Unmet]:
    yield case()


def main() -> int:
    torch.set_num_threads(1)
    return hold("rise", PACKAGES, cases(), int(sys.argv[1]) if len(sys.argv) > 1 else None)


if __name__ == "__main__":
    raise SystemExit(main())
