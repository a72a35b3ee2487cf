"""Findings that are there on radiographs of the demo model's kind."""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from benchmarks.measure import DEVICE
from examples.phantom.samples import radiographs

IMAGES: Final = 16
SEED: Final = 41


def seen(images: int = IMAGES) -> Iterator[tuple[Tensor, int]]:
    """Iterate over findings, one to an image: the image and the output that stands for it."""
    samples = radiographs(SEED, images)
    for picture, labels in zip(samples.images, samples.labels, strict=True):
        if labels.any():
            yield torch.from_numpy(picture).to(DEVICE), int(labels.argmax())
