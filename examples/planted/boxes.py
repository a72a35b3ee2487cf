"""What the detector is trained on, and how good it is: boxes about drawn shapes."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from examples.planted.pictures import SHAPES, SIDE, Picture
from service.domain.boxes import BoxDecoding
from workers.targets.decoding import Decoder, kept, overlaps

STEP: Final = 2
"""Input pixels from cell to cell of the detector's grid."""

INNER: Final = 0.5
"""Cells within this share of a box about its middle are to find it; of others of it is not asked
whether they do."""

Cells = NDArray[np.float32]
THRESHOLD, ENOUGH = 0.5, 0.5
DECODING: Final = BoxDecoding(
    layout="grid",
    channels=("classes", "box"),
    form="distances",
    unit="strides",
    strides=(STEP,),
    scores="sigmoid",
    overlap=0.3,
)


def loss(outputs: Tensor, pictures: Sequence[Picture], small: int) -> Tensor:
    """Return the focal loss of the classes and the distance of the sides of what is there.

    Parameters
    ----------
    small
        Edge of the model's input.
    """
    told = [targets(picture, small) for picture in pictures]
    classes, asked, sides = (torch.from_numpy(np.stack(each)) for each in zip(*told, strict=True))
    logits, measured = outputs.split([len(SHAPES), 4], 1)
    there, inside = classes.amax(1) > 0, sides.amax(1) > 0
    crossed = functional.binary_cross_entropy_with_logits(logits, classes, reduction="none")
    missed = (classes - logits.sigmoid()).abs()
    focal = (asked * missed**2 * crossed).sum() / there.sum().clamp(min=1)
    away = (measured - sides).abs().sum(1)[inside].sum() / inside.sum().clamp(min=1)
    return focal + 0.5 * away


def targets(picture: Picture, small: int) -> tuple[Cells, Cells, Cells]:
    """Return, at each cell, which shape is to be found, whether, and how far its sides are.

    Shapes ``(classes, cells, cells)`` twice and ``(4, cells, cells)``: left, top, right and
    bottom, in steps of the grid.
    """
    count = small // STEP
    place = (np.arange(count) + 0.5) * STEP
    rows, columns = np.meshgrid(place, place, indexing="ij")
    classes = np.zeros((len(SHAPES), count, count), np.float32)
    asked, sides = np.ones_like(classes), np.zeros((4, count, count), np.float32)
    for shape, box in picture.boxes:
        top, left, bottom, right = (each * small / SIDE for each in box)
        away = np.maximum(
            np.abs(rows - (top + bottom) / 2) / (bottom - top),
            np.abs(columns - (left + right) / 2) / (right - left),
        )
        inner = away <= max(INNER / 2, away.min())
        number = SHAPES.index(shape)
        asked[number][away <= 0.5] = 0
        classes[number][inner] = asked[number][inner] = 1
        measured = np.stack([columns - left, rows - top, right - columns, bottom - rows]) / STEP
        sides[:, away <= 0.5] = measured[:, away <= 0.5]
    return classes, asked, sides


def found(network: nn.Module, images: Tensor) -> list[list[tuple[str, Tensor]]]:
    """Return, of each image, the boxes that are found, in input pixels."""
    rows, columns = images.shape[2:]
    decoder = Decoder(DECODING, len(SHAPES), (rows, columns))
    with torch.no_grad():
        proposals = decoder.proposals(network(images))
    every = []
    for boxes, logits in zip(decoder.boxes(proposals), decoder.logits(proposals), strict=True):
        here = []
        for shape, scores in zip(SHAPES, logits.sigmoid().T, strict=True):
            (above,) = torch.where(scores >= THRESHOLD)
            left = kept(boxes[above], scores[above], DECODING.overlap, 100)
            here += [(shape, box) for box in boxes[above][left]]
        every.append(here)
    return every


def right(network: nn.Module, images: Tensor, pictures: Sequence[Picture]) -> tuple[float, float]:
    """Return which share of the shapes is found, and which share of what is found is there.

    A box is right if it overlaps a shape of its class by half or more (IoU).
    """
    hits = there = told = 0
    for picture, boxes in zip(pictures, found(network, images), strict=True):
        there, told = there + len(picture.boxes), told + len(boxes)
        for shape, box in picture.boxes:
            true = torch.tensor(box) * images.shape[2] / SIDE
            same = [each for name, each in boxes if name == shape]
            hits += any(bool(overlaps(each, true) >= ENOUGH) for each in same)
    return hits / there, hits / told
