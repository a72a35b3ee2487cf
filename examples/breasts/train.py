"""Train the model of four views: ``python -m examples.breasts.train``.

It is to say of each breast whether it has a mass; which views show it is known. One seed, one
thread.
"""

from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from examples.breasts.dicom import study
from examples.breasts.drawing import SIDES, VIEWS, Drawing, draw
from examples.dicom import Photometric
from examples.packaging import write_package, write_selftest
from examples.radiographs import MEAN, STD, STEPS, seen
from examples.training import answer, fit_labels, unseen
from service.domain.fields import Explain
from service.domain.files import SelfTest
from service.domain.inputs import Accept, Input
from service.domain.network import Layer
from service.domain.outputs import ClassSpec, Output
from service.domain.target import DEFAULT_TARGETS
from service.domain.view import View
from workers.architectures.multi_view_cnn import MultiViewCnn

NETWORK: Final = MultiViewCnn(views=len(VIEWS), classes=len(SIDES), widths=(8, 16, 16))
SEED, BATCH, RATE, STUDIES, EPOCHS = 20240106, 20, 1e-2, 400, 10
OTHERS: Final = 100
TESTED: Final[tuple[tuple[str, tuple[str, ...], Photometric], ...]] = (
    ("A mass in the left MLO view", ("l_mlo",), "MONOCHROME2"),
    ("No mass, in MONOCHROME1", (), "MONOCHROME1"),
)
"""Self-tests: the title, the views that bear a mass, and how they are stored."""

FOLDER: Final = Path("models/four-view-phantom")


def main() -> None:
    """Train, evaluate and write the package."""
    torch.set_num_threads(1)
    network = train()
    right = accuracy(network, [draw(seed) for seed in unseen(SEED, OTHERS)])
    print(f"right on {OTHERS} others: {right:.3f}")
    write(FOLDER, network, right)


def prepared(drawing: Drawing) -> NDArray[np.float32]:
    """Return the model's input of a study, shape ``(1, views, SMALL, SMALL)``, as of `STEPS`."""
    return np.stack([seen(drawing.stored[view]) for view in VIEWS])[None]


def train() -> nn.Module:
    """Return a new network fitted to drawings, in evaluation mode."""
    drawn = [draw(SEED + number) for number in range(STUDIES)]
    views, labels = torch.from_numpy(np.stack(list(map(prepared, drawn)))), present(drawn)
    return fit_labels(NETWORK, views, labels, seed=SEED, batch=BATCH, epochs=EPOCHS, rate=RATE)


def present(drawings: list[Drawing]) -> Tensor:
    """Return which breasts have a mass, shape ``(N, sides)``, 0 or 1."""
    return torch.tensor([[float(each.present(side)) for side in SIDES] for each in drawings])


def accuracy(network: nn.Module, drawings: list[Drawing]) -> float:
    """Return the share of breasts of which it is told rightly, at a probability of one half."""
    said = torch.stack([answer(network, prepared(each)) > 0 for each in drawings])
    return float((said == present(drawings).bool()).double().mean())


def write(folder: Path, network: nn.Module, right: float) -> None:
    """Write the package to `folder`."""
    accept = Accept(modalities=("MG",), body_parts=("BREAST",))
    views = tuple(map(_view, VIEWS))
    classes = tuple(
        ClassSpec(key=side, label=f"Mass in the {side} breast", threshold=0.5) for side in SIDES
    )
    write_package(
        folder,
        network,
        NETWORK,
        tuple(_selftest(folder, network, number) for number in range(len(TESTED))),
        _CARD.format(right=right, others=OTHERS),
        id="four-view-phantom",
        title="Masses in drawn mammograms of four views",
        intended_use="Demonstration and tests of Whylight on synthetic mammograms.",
        not_for="Clinical use of any kind: it was trained on drawings of no person.",
        task="classification-multilabel",
        inputs=(Input(layout="NCDHW", accept=accept, views=views, steps=STEPS),),
        outputs=(Output(classes=classes),),
        explain=Explain(
            default_targets=DEFAULT_TARGETS, layers=(Layer(name="peaks"),), baseline=-MEAN / STD
        ),
    )


def _view(key: str) -> View:
    side, projection = key.upper().split("_")
    return View(
        key=key,
        label=f"{side} {projection}",
        view_positions=(projection,),
        lateralities=(side,),
    )


def _selftest(folder: Path, network: nn.Module, number: int) -> SelfTest:
    title, bearing, photometric = TESTED[number]
    drawing = draw(7_001 + number, bearing)
    views = study(drawing, f"selftest {number}", photometric)
    return write_selftest(folder, str(number), title, views, answer(network, prepared(drawing)))


_CARD = """# Masses in drawn mammograms of four views

A small network that takes the four views of a drawn screening study at once: both breasts, each
cranio-caudal and medio-lateral oblique. It says of each breast whether there is a mass. A mass may
be shown by one of the breast's views or by both; where it was planted is known to the pixel. No
person was imaged, and it is for no clinical use.

Of {others} studies that it was not trained on, {right:.1%} of its answers are right.

Written anew by `make train-views`.
"""

if __name__ == "__main__":
    main()
