"""The usual checks of a map by cumulative curves, at as many passes as the probe bank.

Each hides or shows the map's places one after the other, most relevant first
(ROAD: also least relevant first), and so needs passes of its own for every
map: 26 here, as many as the bank for all maps of an image. Places are the
cells of a 32 x 32 grid; equal ones are taken in a random but fixed order.
Deletion and insertion hide as the bank does. All figures are shares of the
score on the unchanged image, larger for better maps.

Radiographs are drawn by seeds, a few by each, and explained by one method a seed,
in turn. The scores are those of the model's file of ONNX: the same to the fifth
digit, in half of the time. With a folder, what was said of a seed's radiographs
is kept there, and a run that was stopped goes on::

    python -m benchmarks.curves [images [folder]]

References
----------
Petsiuk, Das, Saenko (2018). RISE: randomized input sampling for explanation of
black-box models. BMVC. arXiv:1806.07421, section 4.3 (deletion, insertion).
Rong, Leemann, Borisov, Kasneci, Kasneci (2022). A consistent and efficient
evaluation strategy for attribution methods. ICML. arXiv:2202.00449 (ROAD).
"""

import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.maps import METHODS, MODEL, SHAPE, WRONG, Finding, Subjects, auc, findings
from benchmarks.measure import RESAMPLES, conditions, publish
from workers.measures.bank import blurred
from workers.measures.bearing import bearings, brought

IMAGES: Final = 204
SHARE: Final = 34
"""Radiographs of one seed."""

SEED: Final = 20_300
PASSES: Final = 26
SIDE: Final = 32
NOISE: Final = 0.02
"""Standard deviation of ROAD's noise, as a share of the image's."""

TOLERANCE: Final = 1e-4
"""Largest residual of the imputation, in model-input units."""

PACKAGES: Final = ("torch", "numpy", "onnxruntime")

Score = Callable[[Tensor], Tensor]
"""Takes rows ``(n, C, *spatial)`` to scores ``(n,)``."""

Array = NDArray[np.float64]


def deletion(score: Score, image: Tensor, relevance: Array) -> float:
    """Return minus the mean score while relevant places are blurred away.

    Parameters
    ----------
    relevance
        Map on the square grid, shape ``(SIDE, SIDE)``.
    """
    gone = _pixels(_first(relevance, _shares(PASSES)), image)
    return -float(score(torch.where(gone, blurred(image), image)).mean())


def insertion(score: Score, image: Tensor, relevance: Array) -> float:
    """Return the mean score while relevant places come back into the blurred image."""
    back = _pixels(_first(relevance, _shares(PASSES)), image)
    return float(score(torch.where(back, image, blurred(image))).mean())


def road(score: Score, image: Tensor, relevance: Array) -> float:
    """Return how much more the score falls if the most relevant is imputed, not the least."""
    shares = _shares(PASSES // 2 + 1)[:-1]  # all removed tells nothing
    most = score(imputed(image, _first(relevance, shares))).mean()
    least = score(imputed(image, _first(-relevance, shares))).mean()
    return float(least - most)


def imputed(image: Tensor, gone: Tensor) -> Tensor:
    r"""Return the image with removed cells as weighted means of their neighbors, and noise.

    Every removed cell obeys :math:`\sum_v w_{uv} (x_u - x_v) = 0` over its
    eight neighbors, weights 1/6 at the sides and 1/12 at the corners. Its
    pixels lie on the plane between its own mean and its neighbors'.

    Parameters
    ----------
    gone
        Removed cells, shape ``(n, 1, SIDE, SIDE)``.
    """
    start = functional.adaptive_avg_pool2d(image, SIDE).expand(len(gone), -1, -1, -1)
    filled = functional.interpolate(_harmonic(start, gone), image.shape[1:], mode="bilinear")
    hidden = _pixels(gone, image)
    noise = torch.randn(filled.shape, generator=torch.Generator().manual_seed(0))
    return torch.where(hidden, filled + NOISE * image.std() * noise, image)


def _harmonic(start: Tensor, gone: Tensor) -> Tensor:
    """Solve by conjugate gradients, until no residual exceeds `TOLERANCE`."""
    weights = start.new_tensor([[1, 2, 1], [2, 0, 2], [1, 2, 1]])[None, None] / 12
    degree = functional.conv2d(torch.ones_like(start[:1]), weights, padding=1)

    def laplacian(x: Tensor) -> Tensor:
        return (degree * x - functional.conv2d(x, weights, padding=1)) * gone

    result, residual = start, -laplacian(start)
    direction, size = residual, _squares(residual)
    while float(residual.abs().max()) > TOLERANCE:
        ahead = laplacian(direction)
        step = size / (direction * ahead).sum((1, 2, 3), keepdim=True).clamp_min(1e-20)
        result = result + step * direction
        residual = residual - step * ahead
        size, before = _squares(residual), size
        direction = residual + size / before.clamp_min(1e-20) * direction
    return result


def _squares(x: Tensor) -> Tensor:
    return (x * x).sum((1, 2, 3), keepdim=True)


def _shares(count: int) -> Array:
    """Return `count` shares of the image, up to all of it."""
    return np.arange(1, count + 1) / count


def _first(relevance: Array, shares: Array) -> Tensor:
    """Return the most relevant cells for each share, shape ``(n, 1, SIDE, SIDE)``."""
    ties = np.random.default_rng(0).random(relevance.size)
    order = np.lexsort((ties, -relevance.ravel()))
    rank = np.empty(relevance.size)
    rank[order] = np.arange(relevance.size)
    return torch.from_numpy(rank.reshape(relevance.shape) < shares[:, None, None] * rank.size)[
        :, None
    ]


def _pixels(cells: Tensor, image: Tensor) -> Tensor:
    """Return a choice of cells as one of pixels."""
    return functional.interpolate(cells.float(), image.shape[1:]) > 0.5


CURVES: Final[Mapping[str, Callable[[Score, Tensor, Array], float]]] = {
    "deletion": deletion,
    "insertion": insertion,
    "road": road,
}


class Said(NamedTuple):
    """The figure of one check for one map."""

    check: str
    method: str
    kind: str
    figure: float


def kept(share: tuple[int, int], folder: Path) -> list[list[Said]]:
    """Judge the maps of a share ``(seed, images)``, or read what was said of them."""
    path = folder / "{}-{}.json".format(*share)
    if not path.exists():
        written = path.with_suffix(".part")
        written.write_text(json.dumps(judged(share)))
        written.rename(path)
    return [[Said(*each) for each in finding] for finding in json.loads(path.read_text())]


def judged(share: tuple[int, int]) -> list[list[Said]]:
    """Judge all maps of a share ``(seed, images)``, finding by finding."""
    torch.set_num_threads(1)
    subjects, session = Subjects(), opened()
    method = list(METHODS)[share[0] % len(METHODS)]
    return [list(_judged(session, finding)) for finding in findings(subjects, *share, [method])]


def opened() -> onnxruntime.InferenceSession:
    """Return the demo model's file of ONNX, ready to be asked by one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(MODEL / "model.onnx", options)


def _judged(session: onnxruntime.InferenceSession, finding: Finding) -> Iterator[Said]:
    known, target = finding.bank, finding.target
    clean = float(known.scores[target])
    (image,) = session.get_inputs()

    def score(rows: Tensor) -> Tensor:
        (outputs,) = session.run(None, {image.name: rows.numpy()})
        return torch.from_numpy(outputs)[:, target] / clean

    for method, kinds in finding.maps.items():
        for kind, each in kinds.items():
            said = bearings(each.values, each.grid, known.shape, known.drops[:, target], clean)
            yield Said("probe_bank", method, kind, -1.0 if said.r is None else said.r)
            relevance = brought(each.values, each.grid, SHAPE[1:], SIDE)
            for name, curve in CURVES.items():
                yield Said(name, method, kind, curve(score, finding.image, relevance))


def compared(said: list[Said]) -> dict[str, dict[str, float]]:
    """Return the AUC of right against wrong maps, by check and kind."""
    figures: dict[tuple[str, str], list[float]] = defaultdict(list)
    for each in said:
        figures[each.check, each.kind].append(each.figure)
    return {
        check: {kind: auc(figures[check, "right"], figures[check, kind]) for kind in WRONG}
        for check in ("probe_bank", *CURVES)
    }


def intervals(said: Sequence[Sequence[Said]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the AUCs' bootstrap intervals of 95 %, by check and kind.

    Findings are drawn as wholes, because the maps of one are no independent cases.
    """
    random = np.random.default_rng(0)
    drawn = random.multinomial(len(said), np.full(len(said), 1 / len(said)), RESAMPLES)
    return {
        check: {kind: _interval(said, drawn.astype(np.float64), check, kind) for kind in WRONG}
        for check in ("probe_bank", *CURVES)
    }


def _interval(
    said: Sequence[Sequence[Said]], drawn: Array, check: str, kind: str
) -> tuple[float, float]:
    """Return one interval, given how often each finding was drawn, ``(resamples, findings)``."""
    right, wrong = (
        [[s.figure for s in each if (s.check, s.kind) == (check, wanted)] for each in said]
        for wanted in ("right", kind)
    )
    differences = [[np.subtract.outer(r, w) for w in wrong] for r in right]
    wins = np.array([[((d > 0) + 0.5 * (d == 0)).sum() for d in row] for row in differences])
    pairs = np.array([[d.size for d in row] for row in differences])
    aucs = ((drawn @ wins) * drawn).sum(axis=1) / ((drawn @ pairs) * drawn).sum(axis=1)
    low, high = np.percentile(aucs, [2.5, 97.5])
    return round(float(low), 3), round(float(high), 3)


def result(said: Sequence[Sequence[Said]], shares: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Return everything that is published, given what was said of each finding."""
    return {
        "conditions": conditions(PACKAGES),
        "shares": [{"seed": seed, "images": images} for seed, images in shares],
        "findings": len(said),
        "right_maps": {name: sum(each[0].method == name for each in said) for name in METHODS},
        "forwards": {"probe_bank": "26 an image", **dict.fromkeys(CURVES, "26 a map")},
        "auc": compared([each for finding in said for each in finding]),
        "interval": intervals(said),
    }


def main() -> None:
    """Run the comparison and publish its figures."""
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    shares = [(SEED + k, min(SHARE, count - SHARE * k)) for k in range(-(-count // SHARE))]
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool,
    ):
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else scratch)
        said = [each for share in pool.map(partial(kept, folder=folder), shares) for each in share]
    found = result(said, shares)
    for check, kinds in found["auc"].items():
        print(f"{check:12}", kinds)
    print(f"written to {publish('curves', found)}")


if __name__ == "__main__":
    main()
