"""Train the model of four views: ``python -m examples.breasts.train``.

It is to say of each breast whether it has a mass; which views show it is known. One seed, one
thread.
"""

import hashlib
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pydicom.uid import JPEGLSLossless
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from examples.breasts.dicom import study
from examples.breasts.drawing import SIDES, VIEWS, Drawing, draw
from service.domain.files import File, SelfTest
from service.domain.inputs import Accept, Input, StepChoice
from service.domain.manifest import Explain, Manifest
from service.domain.network import Architecture, Layer
from service.domain.outputs import ClassSpec, Output
from service.domain.view import View
from workers.architectures.multi_view_cnn import MultiViewCnn

SMALL: Final = 64
"""Rows and columns of a view as the model takes it."""

NETWORK: Final = MultiViewCnn(views=len(VIEWS), classes=len(SIDES), widths=(8, 16, 16))
WIDTH, MEAN, STD = 2800.0, 0.4, 0.2
STEPS: Final = (
    StepChoice(name="invert_monochrome1"),
    StepChoice(name="window", parameters={"kind": "fixed", "center": WIDTH / 2, "width": WIDTH}),
    StepChoice(name="resize", parameters={"size": [SMALL, SMALL]}),
    StepChoice(name="normalize", parameters={"mean": [MEAN], "std": [STD]}),
)
SEED, BATCH, RATE, STUDIES, EPOCHS = 20240106, 20, 1e-2, 400, 10
OTHERS: Final = 100
TOLERANCE: Final = 0.05
TESTED: Final = (("A mass in the left MLO view", ("l_mlo",)), ("No mass", ()))
FOLDER: Final = Path("models/four-view-phantom")


def main() -> None:
    """Train, evaluate and write the package."""
    torch.set_num_threads(1)
    network = train()
    seeds = range(SEED + 1_000_000, SEED + 1_000_000 + OTHERS)
    right = accuracy(network, [draw(seed) for seed in seeds])
    print(f"right on {OTHERS} others: {right:.3f}")
    write(FOLDER, network, right)


def prepared(drawing: Drawing) -> NDArray[np.float32]:
    """Return the model's input of a study, shape ``(1, views, SMALL, SMALL)``, as of `STEPS`."""
    return np.stack([_small(drawing.stored[view]) for view in VIEWS])[None]


def _small(stored: NDArray[np.uint16]) -> NDArray[np.float32]:
    rows, columns = stored.shape
    window = np.clip(stored / WIDTH, 0, 1)
    small = window.reshape(SMALL, rows // SMALL, SMALL, columns // SMALL).mean((1, 3))
    return ((small - MEAN) / STD).astype(np.float32)


def train() -> nn.Module:
    """Return a new network fitted to drawings, in evaluation mode."""
    drawn = [draw(SEED + number) for number in range(STUDIES)]
    views, labels = torch.from_numpy(np.stack(list(map(prepared, drawn)))), present(drawn)
    torch.manual_seed(SEED)
    random = torch.Generator().manual_seed(SEED)
    network = NETWORK.build().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.02)
    steps = EPOCHS * -(-STUDIES // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    began = time.monotonic()
    for epoch in range(EPOCHS):
        losses = []
        for batch in torch.split(torch.randperm(STUDIES, generator=random), BATCH):
            loss = functional.binary_cross_entropy_with_logits(network(views[batch]), labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        seconds = time.monotonic() - began
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, {seconds:.0f} s", flush=True)
    return network.eval()


def present(drawings: list[Drawing]) -> Tensor:
    """Return which breasts have a mass, shape ``(N, sides)``, 0 or 1."""
    return torch.tensor([[float(each.present(side)) for side in SIDES] for each in drawings])


def accuracy(network: nn.Module, drawings: list[Drawing]) -> float:
    """Return the share of breasts of which it is told rightly, at a probability of one half."""
    said = torch.stack([logits(network, each) > 0 for each in drawings])
    return float((said == present(drawings).bool()).double().mean())


def logits(network: nn.Module, drawing: Drawing) -> Tensor:
    """Return what a network says of a study, shape ``(classes,)``."""
    with torch.no_grad():
        said: Tensor = network(torch.from_numpy(prepared(drawing))[None])[0]
    return said


def write(folder: Path, network: nn.Module, right: float) -> None:
    """Write the package to `folder`."""
    (folder / "selftest").mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(save(network.state_dict()))
    tests = tuple(_selftest(folder, network, number) for number in range(len(TESTED)))
    (folder / "CARD.md").write_text(_CARD.format(right=right, others=OTHERS))
    manifest = Manifest(
        id="four-view-phantom",
        version="1.0.0",
        title="Masses in drawn mammograms of four views",
        publisher="Whylight",
        license="Apache-2.0",
        intended_use="Demonstration and tests of Whylight on synthetic mammograms.",
        not_for="Clinical use of any kind: it was trained on drawings of no person.",
        task="classification-multilabel",
        runtime="torch",
        architecture=Architecture(name=NETWORK.name, parameters=NETWORK.model_dump(mode="json")),
        files=(
            _file(folder, "weights", "safetensors", "weights.safetensors"),
            *(_file(folder, "selftest", "dicom", path) for test in tests for path in test.paths),
        ),
        inputs=(
            Input(
                layout="NCDHW",
                accept=Accept(modalities=("MG",), body_parts=("BREAST",)),
                views=tuple(map(_view, VIEWS)),
                steps=STEPS,
            ),
        ),
        outputs=(
            Output(
                classes=tuple(
                    ClassSpec(key=side, label=f"Mass in the {side} breast", threshold=0.5)
                    for side in SIDES
                ),
            ),
        ),
        explain=Explain(layers=(Layer(name="peaks"),), baseline=-MEAN / STD),
        selftests=tests,
    )
    content: dict[str, Any] = manifest.model_dump(mode="json", exclude_none=True)
    (folder / "model.yaml").write_text(yaml.safe_dump(content, sort_keys=False, width=100))


def _view(key: str) -> View:
    side, projection = key.upper().split("_")
    return View(
        key=key,
        label=f"{side} {projection}",
        view_positions=(projection,),
        lateralities=(side,),
    )


def _selftest(folder: Path, network: nn.Module, number: int) -> SelfTest:
    title, bearing = TESTED[number]
    drawing = draw(7_001 + number, bearing)
    paths = {}
    for view, data in study(drawing, f"selftest {number}").items():
        uid = data.SOPInstanceUID
        data.compress(JPEGLSLossless)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid
        paths[view] = f"selftest/{number}_{view}.dcm"
        data.save_as(folder / paths[view], enforce_file_format=True)
    return SelfTest(
        title=title,
        input=paths,
        logits=tuple(round(float(each), 5) for each in logits(network, drawing)),
        tolerance=TOLERANCE,
    )


def _file(folder: Path, role: str, format_: str, path: str) -> File:
    content = (folder / path).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return File.model_validate(
        {"role": role, "format": format_, "path": path, "sha256": digest, "bytes": len(content)}
    )


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
