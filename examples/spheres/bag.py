"""Train a model that takes slices as a bag: ``python -m examples.spheres.bag``.

The same phantoms as of the sphere model, but each slice is seen by itself: which slices
bear the evidence is known. Dense spheres are to be found; hollow ones tell nothing. One
seed, one thread.
"""

from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from examples.packaging import write_package, write_selftest
from examples.spheres.dicom import enhanced
from examples.spheres.phantom import Phantom, draw
from examples.spheres.train import KNOWN
from examples.training import answer, fit_labels, unseen
from service.domain.fields import Explain
from service.domain.files import SelfTest
from service.domain.inputs import Accept, Bag, Input, StepChoice, VolumeRules
from service.domain.network import Layer
from service.domain.outputs import ClassSpec, Output
from service.domain.target import DEFAULT_TARGETS
from workers.architectures.attention_mil import AttentionMil

FINDING: Final = "dense"
NETWORK: Final = AttentionMil(classes=1, widths=(8, 16, 16))
CENTER, WIDTH, MEAN, STD = 40.0, 800.0, 0.5, 0.25
STEPS: Final = (
    StepChoice(name="window", parameters={"kind": "fixed", "center": CENTER, "width": WIDTH}),
    StepChoice(name="normalize", parameters={"mean": [MEAN], "std": [STD]}),
)
SEED, BATCH, RATE, PHANTOMS, EPOCHS = 20240104, 10, 1e-2, 200, 8
OTHERS: Final = 100
FOLDER: Final = Path("models/sphere-bag-phantom")


def main() -> None:
    """Train, evaluate and write the package."""
    torch.set_num_threads(1)
    network = train()
    right = accuracy(network, [draw(seed) for seed in unseen(SEED, OTHERS)])
    print(f"right on {OTHERS} others: {right:.3f}")
    write(FOLDER, network, right)


def prepared(phantom: Phantom) -> NDArray[np.float32]:
    """Return the model's input of a phantom, shape ``(1, slices, rows, columns)``."""
    stored = np.rint(phantom.values)
    shown = np.clip((stored - CENTER) / WIDTH + 0.5, 0, 1)
    return ((shown - MEAN) / STD).astype(np.float32)[None]


def train() -> nn.Module:
    """Return a new network fitted to phantoms, in evaluation mode."""
    drawn = [draw(SEED + number) for number in range(PHANTOMS)]
    bags = torch.from_numpy(np.stack([prepared(each) for each in drawn]))
    labels = torch.tensor([[float(present(each))] for each in drawn])
    return fit_labels(NETWORK, bags, labels, seed=SEED, batch=BATCH, epochs=EPOCHS, rate=RATE)


def accuracy(network: nn.Module, phantoms: list[Phantom]) -> float:
    """Return the share of phantoms of which it is told rightly, at a probability of one half."""
    right = [bool(answer(network, prepared(each))[0] > 0) == present(each) for each in phantoms]
    return float(np.mean(right))


def present(phantom: Phantom) -> bool:
    """Tell whether the finding is in a phantom."""
    return bool(phantom.mask(FINDING).any())


def write(folder: Path, network: nn.Module, right: float) -> None:
    """Write the package to `folder`."""
    accept = Accept(
        modalities=("CT",), image_types=("ORIGINAL",), volume=VolumeRules(least_slices=8)
    )
    bag = Bag(attention=Layer(name="attention"))
    write_package(
        folder,
        network,
        NETWORK,
        tuple(_selftest(folder, network, finding, seed) for finding, seed in KNOWN),
        _CARD.format(right=right, others=OTHERS),
        id="sphere-bag-phantom",
        title="Spheres in a bag of slices",
        intended_use="Demonstration and tests of Whylight on synthetic CT series.",
        not_for="Clinical use of any kind: it was trained on drawn volumes of no person.",
        task="classification-multilabel",
        inputs=(Input(kind="volume", layout="NCDHW", accept=accept, bag=bag, steps=STEPS),),
        outputs=(Output(classes=(ClassSpec(key=FINDING, label="Dense sphere", threshold=0.5),)),),
        explain=Explain(
            default_targets=DEFAULT_TARGETS, layers=(Layer(name="peaks"),), baseline=0.0
        ),
    )


def _selftest(folder: Path, network: nn.Module, finding: str, seed: int) -> SelfTest:
    phantom = draw(seed, [finding])
    data = enhanced(phantom, f"bag {finding}")
    said = answer(network, prepared(phantom))
    return write_selftest(folder, finding, f"A {finding} sphere", data, said)


_CARD = """# Spheres in a bag of slices

A small network that sees each slice of a drawn CT series by itself and weighs the slices by
attention. The series are those of `sphere-phantom`: a dense sphere, a hollow one, both or none, in
a few of 24 slices, which are known. It says whether there is a dense one; hollow ones tell nothing.
No person was imaged, and it is for no clinical use.

Of {others} series that it was not trained on, it is right on {right:.1%}.

Written anew by `make train-spheres`.
"""

if __name__ == "__main__":
    main()
