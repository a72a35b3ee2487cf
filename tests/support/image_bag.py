"""A package that takes single images of a study as a bag, on slices of a phantom with a sphere.

Its network is that of ``models/sphere-bag-phantom``: it sees each slice by itself, and so sees
single images as well.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
import yaml
from pydicom.dataset import Dataset
from safetensors.torch import load_file, save_file
from torch import nn

from examples.spheres.bag import FINDING, NETWORK, prepared
from examples.spheres.dicom import series
from examples.spheres.phantom import draw
from tests.support.phantom_dicom import encoded
from tests.support.small_model import entry_of

SLICES: Final = Path(__file__).parents[2] / "models" / "sphere-bag-phantom"
PHANTOM: Final = draw(4_242, ["dense"])
MASK: Final = PHANTOM.mask(FINDING)
BEARING: Final = [int(each) for each in np.flatnonzero(MASK.any((1, 2)))]
MIDDLE: Final = BEARING[len(BEARING) // 2]
SHOWN: Final = [BEARING[0] - 4, MIDDLE, BEARING[0] - 6, MIDDLE + 1, BEARING[-1] + 3]
"""Slices that a study has as images, in its order; the second and the fourth show the sphere."""


def network() -> nn.Module:
    """Return the trained network, in evaluation mode."""
    made = NETWORK.build()
    made.load_state_dict(load_file(SLICES / "weights.safetensors"))
    return made.eval()


def logit(slices: Sequence[int]) -> float:
    """Return what the network says of some slices alone."""
    with torch.no_grad():
        bag = torch.from_numpy(prepared(PHANTOM)[None][:, :, list(slices)])
        return float(network()(bag)[0, 0])


def images(name: str, slices: Sequence[int]) -> list[Dataset]:
    """Return slices as single images, each in a series of its own."""
    whole = series(PHANTOM, name)
    found = [whole[number] for number in slices]
    for number, each in enumerate(found):
        each.SeriesInstanceUID += f".{number}"
    return found


def write_image_bag(folder: Path) -> Path:
    """Write the package into `folder` and return it."""
    folder.mkdir(parents=True)
    fields = yaml.safe_load((SLICES / "model.yaml").read_text())
    save_file(network().state_dict(), folder / "weights.safetensors")
    fields["files"] = [entry_of(folder, "weights.safetensors", "weights", "safetensors")]
    fields["selftests"] = []
    for title, count in (("three", 3), ("two", 2)):
        names = [f"{title}_{number}.dcm" for number in range(count)]
        for name, each in zip(names, images(title, SHOWN[:count]), strict=True):
            (folder / name).write_bytes(encoded(each))
            fields["files"].append(entry_of(folder, name, "selftest", "dicom"))
        said = {"title": title, "input": names, "logits": [logit(SHOWN[:count])]}
        fields["selftests"].append({**said, "tolerance": 0.05})
    fields["id"] = "images"
    fields["inputs"][0] |= {
        "kind": "image",
        "accept": {"modalities": ["CT"], "image_types": ["ORIGINAL"]},
        "bag": {"images": {"least": 2, "most": 8}, "attention": {"name": "attention"}, "shown": 2},
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    return folder
