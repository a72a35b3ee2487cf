"""Train the sphere model and write its package: ``python -m examples.spheres.train``.

One seed, one thread: the same machine gives the same weights. Its inputs are
prepared by the very steps that its manifest names.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from examples.packaging import write_package, write_selftest
from examples.spheres.dicom import enhanced
from examples.spheres.phantom import FINDINGS, SHAPE, Phantom, draw
from examples.spheres.scans import SCANS, Scan, supine
from examples.training import answer, fit_labels, unseen
from service.domain.fields import Explain
from service.domain.files import SelfTest
from service.domain.grid import Grid
from service.domain.inputs import Accept, Input, StepChoice, VolumeRules
from service.domain.network import Layer
from service.domain.outputs import ClassSpec, Output
from service.domain.target import DEFAULT_TARGETS
from workers.architectures.residual_cnn import ResidualCnn
from workers.parcels import ImageFacts
from workers.stages.prepare import parse_steps
from workers.steps.base import StepImage

NETWORK = ResidualCnn(
    channels=1,
    classes=len(FINDINGS),
    axes=3,
    stem=8,
    widths=(16, 16),
    strides=(1, 1),
    dilations=(1, 1),
)
SIDE = 32
STEPS = (
    StepChoice(name="orient", parameters={"axes": "SPL"}),
    StepChoice(name="resample", parameters={"spacing": [2.25, 2.25, 2.25]}),
    StepChoice(name="window", parameters={"kind": "fixed", "center": 40, "width": 800}),
    StepChoice(name="pad", parameters={"size": [SIDE, SIDE, SIDE]}),
    StepChoice(name="crop", parameters={"size": [SIDE, SIDE, SIDE]}),
    StepChoice(name="normalize", parameters={"mean": [0.5], "std": [0.25]}),
)
SEED, BATCH, RATE = 20240102, 20, 1e-2
KNOWN = (("dense", 7_001), ("hollow", 7_002))
"""Self-tests: the finding that is in it, and the phantom's seed."""


def main() -> None:
    """Train, evaluate and write the package."""
    asked = _arguments()
    torch.set_num_threads(1)
    network = train(asked.phantoms, asked.epochs)
    right = accuracy(network, [draw(seed) for seed in unseen(SEED, asked.test_phantoms)])
    print(f"right on {asked.test_phantoms} others: {right:.3f}")
    write(asked.out, network, right)


def prepared(phantom: Phantom) -> NDArray[np.float32]:
    """Return the model's input of a phantom, shape ``(1, SIDE, SIDE, SIDE)``."""
    return np.ascontiguousarray(stepped(supine(phantom), STEPS).values)


def stepped(scan: Scan, steps: Sequence[StepChoice]) -> StepImage:
    """Return a scan after steps, with its place in the series."""
    grid = Grid.identity(scan.values.shape)
    image = StepImage(scan.values[None], None, grid, scan.affine)
    for step in parse_steps(steps):
        image = step.apply(image, _FACTS)
    return image


_FACTS = ImageFacts(
    rows=SHAPE[1],
    columns=SHAPE[2],
    slices=SHAPE[0],
    channels=1,
    modality="CT",
    photometric_interpretation="MONOCHROME2",
    bits_stored=12,
    stored_minimum=0,
    stored_maximum=4095,
    value_minimum=-1024,
    value_maximum=3071,
    lossy=False,
    window=None,
)


def train(phantoms: int, epochs: int) -> nn.Module:
    """Return a new network fitted to phantoms, in evaluation mode."""
    drawn = [draw(SEED + number) for number in range(phantoms)]
    images = torch.from_numpy(np.stack([prepared(each) for each in drawn]))
    labels = torch.from_numpy(np.stack([each.labels for each in drawn]))
    return fit_labels(NETWORK, images, labels, seed=SEED, batch=BATCH, epochs=epochs, rate=RATE)


def accuracy(network: nn.Module, phantoms: list[Phantom]) -> float:
    """Return the share of findings told rightly at a probability of one half."""
    said = [(answer(network, prepared(each)) > 0).numpy() for each in phantoms]
    right = [found == (each.labels > 0) for found, each in zip(said, phantoms, strict=True)]
    return float(np.mean(right))


def write(folder: Path, network: nn.Module, right: float) -> None:
    """Write the package to `folder`."""
    classes = tuple(
        ClassSpec(key=each, label=f"{each.title()} sphere", threshold=0.5) for each in FINDINGS
    )
    write_package(
        folder,
        network,
        NETWORK,
        selftests(folder, KNOWN, STEPS, partial(answer, network)),
        _CARD.format(right=right),
        id="sphere-phantom",
        title="Spheres in a volume",
        intended_use="Demonstration and tests of Whylight on synthetic CT volumes.",
        not_for="Clinical use of any kind: it was trained on drawn volumes of no person.",
        task="classification-multilabel",
        inputs=(Input(kind="volume", layout="NCDHW", accept=accept(), steps=STEPS),),
        outputs=(Output(classes=classes),),
        explain=Explain(
            default_targets=DEFAULT_TARGETS, layers=(Layer(name="peaks"),), baseline=0.0
        ),
    )


def accept() -> Accept:
    """Return the rules of both models for spheres."""
    rules = VolumeRules(least_slices=8, slice_spacing=(0.5, 6.0), pixel_spacing=(0.3, 3.0))
    return Accept(modalities=("CT",), image_types=("ORIGINAL",), volume=rules)


def selftests(
    folder: Path,
    known: Sequence[tuple[str, int]],
    steps: Sequence[StepChoice],
    said: Callable[[NDArray[np.float32]], Iterable[float]],
) -> tuple[SelfTest, ...]:
    """Write the inputs of self-tests, one scan of each kind; return the tests.

    Parameters
    ----------
    known
        Of each the finding that is in it, and the phantom's seed.
    said
        Returns the logits of a prepared image.
    """
    tests = []
    for (finding, seed), scan in zip(known, SCANS, strict=True):
        phantom = draw(seed, [finding])
        data = enhanced(phantom, f"selftest {finding}", scan)
        logits = said(np.ascontiguousarray(stepped(scan(phantom), steps).values))
        title = f"A {finding} sphere, {scan.__name__}"
        tests.append(write_selftest(folder, finding, title, data, logits))
    return tuple(tests)


_CARD = """# Spheres in a volume

A small network for volumes, trained on drawn CT series of an ellipsoid of soft tissue with spheres
in it: denser than the tissue (`dense`), less dense (`hollow`), both or none. It exists so that the
way of a volume through Whylight can be tried and tested: where the evidence lies is known to the
voxel. No person was imaged, and it is for no clinical use.

Of 200 phantoms that it was not trained on, {right:.1%} of the findings are told rightly.

Written anew by `make train-spheres`.
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the sphere phantom model.")
    parser.add_argument("--out", type=Path, default=Path("models/sphere-phantom"))
    parser.add_argument("--phantoms", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--test-phantoms", type=int, default=200)
    return parser.parse_args()


if __name__ == "__main__":
    main()
