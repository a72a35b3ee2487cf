from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from service.domain.files import Calibration, File
from service.domain.manifest import Manifest
from tests.support.parcels import manifest
from workers.gaps import gaps

PATH = "cases.safetensors"
SHAPE = (1, 4, 4)


def told(folder: Path, images: Tensor, labels: Tensor) -> Manifest:
    """Write a calibration set and return a manifest that names it."""
    save_file({"images": images, "labels": labels}, folder / PATH)
    plain = manifest()
    file = File(role="calibration", format="safetensors", path=PATH, sha256="0" * 64, bytes=1)
    cases = Calibration(cases=PATH, synthetic=True, title="Drawn.")
    return plain.model_copy(update={"files": (*plain.files, file), "calibration": cases})


def brightness(classes: int):
    """A model whose every logit is the image's sum."""

    def ask(images: Tensor) -> NDArray[np.float64]:
        return images.flatten(1).sum(1).double().numpy()[:, None].repeat(classes, axis=1)

    return ask


CLASSES = len(manifest().classes)


def images(*levels: float) -> Tensor:
    return torch.stack([torch.full(SHAPE, level / 16) for level in levels]).half()


def labels(*present: int) -> Tensor:
    columns = torch.zeros(len(present), CLASSES, dtype=torch.uint8)
    columns[:, 0] = torch.tensor(present)
    return columns


def test_a_gap_is_the_distance_of_the_two_means(tmp_path: Path) -> None:
    model = told(tmp_path, images(1, 3, 10, 14), labels(0, 0, 1, 1))
    assert gaps(model, tmp_path, SHAPE, brightness(CLASSES)) == {0: pytest.approx(10.0)}


def test_a_class_that_the_model_does_not_tell_apart_has_none(tmp_path: Path) -> None:
    model = told(tmp_path, images(10, 14, 1, 3), labels(0, 0, 1, 1))
    assert gaps(model, tmp_path, SHAPE, brightness(CLASSES)) == {}


@pytest.mark.parametrize(
    ("pictures", "present"),
    [
        (images(1, 2), labels(0, 0)),
        (torch.full((2, *SHAPE), torch.nan), labels(0, 1)),
        (torch.zeros(2, 1, 5, 5), labels(0, 1)),
        (torch.zeros((2, *SHAPE), dtype=torch.uint8), labels(0, 1)),
        (images(1, 2), torch.zeros(2, CLASSES + 1, dtype=torch.uint8)),
    ],
)
def test_a_set_that_does_not_serve_gives_no_yardstick(
    tmp_path: Path, pictures: Tensor, present: Tensor
) -> None:
    model = told(tmp_path, pictures, present)
    assert gaps(model, tmp_path, SHAPE, brightness(CLASSES)) == {}


def test_without_a_set_nothing_is_asked(tmp_path: Path) -> None:
    def ask(_: Tensor) -> NDArray[np.float64]:
        raise AssertionError

    assert gaps(manifest(), tmp_path, SHAPE, ask) == {}
