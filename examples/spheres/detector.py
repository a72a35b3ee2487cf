"""Train the detector of spheres: ``python -m examples.spheres.detector``.

It is given the phantoms as the classifier of spheres is, with up to two of each finding.
One seed, one thread: the same machine gives the same weights.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from examples.boxes import Detecting
from examples.packaging import TOLERANCE, write_object, write_package
from examples.spheres.dicom import enhanced
from examples.spheres.phantom import FINDINGS, SHAPE, Phantom, draw
from examples.spheres.scans import SCANS, Scan
from examples.spheres.train import SIDE, STEPS, accept, prepared, stepped
from examples.training import fit_drawn, unseen
from service.domain.fields import Explain
from service.domain.files import SelfTest
from service.domain.inputs import Input
from service.domain.network import Layer
from workers.architectures.dense_detector import DenseDetector

NETWORK: Final = DenseDetector(
    axes=3, classes=len(FINDINGS), widths=(8, 16, 16), strides=(2, 1, 1), dilations=(1, 1, 2)
)
DETECTING: Final = Detecting(
    {each: f"{each.title()} sphere" for each in FINDINGS}, drawn=SHAPE, small=(SIDE,) * 3
)
SEED, BATCH, RATE = 20240105, 10, 1e-2
MOST: Final = 2
"""Spheres of one finding in a phantom."""

KNOWN: Final = (("several", ("dense", "dense", "hollow"), 7_201), ("hollow", ("hollow",), 7_202))
"""Self-tests: the findings that are in it, and the phantom's seed."""


def main() -> None:
    """Train, evaluate and write the package."""
    asked = _arguments()
    torch.set_num_threads(1)
    network = train(asked.phantoms, asked.epochs)
    others = [several(seed) for seed in unseen(SEED, asked.test_phantoms)]
    said = DETECTING.judged(network, inputs(others), others)
    print(f"{FOLDER.name}: {said}")
    write(asked.out, network, f"On {len(others)} phantoms that it was not trained on: {said}.")


def several(seed: int) -> Phantom:
    """Draw a phantom with up to `MOST` spheres of each finding."""
    counts = np.random.default_rng([seed, 1]).integers(0, MOST + 1, len(FINDINGS))
    return draw(
        seed, [each for each, count in zip(FINDINGS, counts, strict=True) for _ in range(count)]
    )


def inputs(phantoms: Sequence[Phantom]) -> Tensor:
    """Return the model's inputs, shape ``(N, 1, SIDE, SIDE, SIDE)``."""
    return torch.from_numpy(np.stack(list(map(prepared, phantoms))))


def train(phantoms: int, epochs: int) -> nn.Module:
    """Return a new network fitted to phantoms, in evaluation mode."""
    drawn = [several(SEED + number) for number in range(phantoms)]

    def loss_of(outputs: Tensor, places: list[int]) -> Tensor:
        return DETECTING.loss(outputs, [drawn[k] for k in places])

    images = (inputs(drawn),)
    return fit_drawn(NETWORK, images, loss_of, seed=SEED, batch=BATCH, epochs=epochs, rate=RATE)


def write(folder: Path, network: nn.Module, said: str) -> None:
    """Write the package to `folder`."""
    write_package(
        folder,
        network,
        NETWORK,
        tuple(
            _selftest(folder, network, known, scan)
            for known, scan in zip(KNOWN, SCANS, strict=True)
        ),
        _CARD.format(said=said),
        id=FOLDER.name,
        title="Boxes about spheres in a volume",
        intended_use="Demonstration and tests of Whylight on synthetic CT volumes.",
        not_for="Clinical use of any kind: it was trained on drawn volumes of no person.",
        task="detection",
        inputs=(Input(kind="volume", layout="NCDHW", accept=accept(), steps=STEPS),),
        outputs=(DETECTING.output,),
        explain=Explain(layers=(Layer(name="trunk.1"),), baseline=0.0),
    )


def _selftest(
    folder: Path,
    network: nn.Module,
    known: tuple[str, Sequence[str], int],
    scan: Callable[[Phantom], Scan],
) -> SelfTest:
    name, findings, seed = known
    phantom, path = draw(seed, findings), f"selftest/{name}.dcm"
    write_object(folder / path, enhanced(phantom, f"detector {name}", scan), compress=True)
    image = stepped(scan(phantom), STEPS)
    given = torch.from_numpy(np.ascontiguousarray(image.values))[None]
    said = DETECTING.said(network, given, image.grid)
    told = {"title": f"{name.title()}, {scan.__name__}", "input": path, "tolerance": TOLERANCE}
    return SelfTest.model_validate(told | said)


FOLDER: Final = Path("models/sphere-detector-phantom")
_CARD = """# Boxes about spheres in a volume

A small detector for volumes, trained on drawn CT series of an ellipsoid of soft tissue with spheres
in it, up to two that are denser than the tissue (`dense`) and up to two that are less dense
(`hollow`). It puts a box about each. Where the evidence lies is known to the voxel. No person was
imaged, and it is for no clinical use.

{said}

Written anew by `make train-spheres`.
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the detector of spheres.")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--phantoms", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--test-phantoms", type=int, default=100)
    return parser.parse_args()


if __name__ == "__main__":
    main()
