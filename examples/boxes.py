"""What detectors are trained on, and how good they are: boxes about planted things, in any axes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from examples.packaging import rounded
from service.domain.boxes import BoxDecoding
from service.domain.grid import Grid
from service.domain.outputs import ClassSpec, Output
from workers.targets.decoding import Decoder, kept, overlaps

STEP: Final = 2
"""Input pixels from cell to cell of a detector's grid."""

INNER: Final = 0.5
"""Cells within this share of a box about its middle are to find it; of others of it is not asked
whether they do."""

THRESHOLD, ENOUGH = 0.5, 0.5
Cells = NDArray[np.float32]
Bounds = tuple[float, ...]
"""Starts along each axis, then ends, past the end."""


class Planted(Protocol):
    """A drawing, and what is in it."""

    @property
    def boxes(self) -> Sequence[tuple[str, Bounds]]:
        """Each thing's class, and the box about it in the drawing's pixels."""
        ...


@dataclass(frozen=True)
class Detecting:
    """What a dense detector is to find.

    Parameters
    ----------
    labels
        Of each class, by key.
    drawn, small
        Pixels along each axis of a drawing, and of the model's input that is made of all of it.
    """

    labels: Mapping[str, str]
    drawn: tuple[int, ...]
    small: tuple[int, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' keys."""
        return tuple(self.labels)

    @property
    def decoding(self) -> BoxDecoding:
        """How the detector's output is read."""
        return BoxDecoding.model_validate(
            {
                "layout": "grid",
                "channels": ("classes", "box"),
                "form": "distances",
                "unit": "strides",
                "axes": "xyz"[: len(self.small)],
                "strides": (STEP,),
                "scores": "sigmoid",
                "overlap": 0.3,
            }
        )

    @property
    def output(self) -> Output:
        """What its package says of the output."""
        return Output(
            name="proposals",
            decoding="boxes",
            classes=tuple(
                ClassSpec(key=key, label=label, threshold=THRESHOLD)
                for key, label in self.labels.items()
            ),
            boxes=self.decoding,
        )

    def loss(self, outputs: Tensor, drawings: Sequence[Planted]) -> Tensor:
        """Return the focal loss of the classes and the distance of the sides of what is there."""
        told = [self.targets(each) for each in drawings]
        classes, asked, sides = (
            torch.from_numpy(np.stack(each)) for each in zip(*told, strict=True)
        )
        logits, measured = outputs.split([len(self.classes), 2 * len(self.small)], 1)
        there, inside = classes.amax(1) > 0, sides.amax(1) > 0
        crossed = functional.binary_cross_entropy_with_logits(logits, classes, reduction="none")
        missed = (classes - logits.sigmoid()).abs()
        focal = (asked * missed**2 * crossed).sum() / there.sum().clamp(min=1)
        away = (measured - sides).abs().sum(1)[inside].sum() / inside.sum().clamp(min=1)
        loss: Tensor = focal + 0.5 * away
        return loss

    def targets(self, drawing: Planted) -> tuple[Cells, Cells, Cells]:
        """Return, at each cell, which class is to be found, whether, and how far its sides are.

        Shapes ``(classes, *cells)`` twice and ``(2 * axes, *cells)``: the near sides, columns
        first, then the far ones, in steps of the grid.
        """
        lines = [(np.arange(length // STEP) + 0.5) * STEP for length in self.small]
        places = np.stack(np.meshgrid(*lines, indexing="ij"))
        cells = places.shape[1:]
        classes = np.zeros((len(self.classes), *cells), np.float32)
        asked = np.ones_like(classes)
        sides = np.zeros((2 * len(cells), *cells), np.float32)
        for key, box in drawing.boxes:
            low, high = (each.reshape(-1, *(1,) * len(cells)) for each in self._seen(box))
            away = (np.abs(places - (low + high) / 2) / (high - low)).max(0)
            inner = away <= max(INNER / 2, away.min())
            number = self.classes.index(key)
            asked[number][away <= 0.5] = 0
            classes[number][inner] = asked[number][inner] = 1
            measured = np.concatenate([(places - low)[::-1], (high - places)[::-1]]) / STEP
            sides[:, away <= 0.5] = measured[:, away <= 0.5]
        return classes, asked, sides

    def found(self, network: nn.Module, images: Tensor) -> list[list[tuple[str, Tensor]]]:
        """Return, of each image, the boxes that are found, in input pixels."""
        decoder = Decoder(self.decoding, len(self.classes), self.small)
        with torch.no_grad():
            proposals = decoder.proposals(network(images))
        every = []
        for boxes, logits in zip(decoder.boxes(proposals), decoder.logits(proposals), strict=True):
            here = []
            for key, scores in zip(self.classes, logits.sigmoid().T, strict=True):
                (above,) = torch.where(scores >= THRESHOLD)
                left = kept(boxes[above], scores[above], self.decoding.overlap, 100)
                here += [(key, box) for box in boxes[above][left]]
            every.append(here)
        return every

    def right(
        self, network: nn.Module, images: Tensor, drawings: Sequence[Planted]
    ) -> tuple[float, float]:
        """Return which share of the things is found, and which share of what is found is there.

        A box is right if it overlaps a thing of its class by half or more (IoU).
        """
        hits = there = told = 0
        for drawing, boxes in zip(drawings, self.found(network, images), strict=True):
            there, told = there + len(drawing.boxes), told + len(boxes)
            for key, box in drawing.boxes:
                true = torch.from_numpy(np.concatenate(self._seen(box)))
                same = [each for name, each in boxes if name == key]
                hits += any(bool(overlaps(each, true) >= ENOUGH) for each in same)
        return hits / there, hits / told

    def judged(self, network: nn.Module, images: Tensor, drawings: Sequence[Planted]) -> str:
        """Say how good a network is."""
        things, boxes = self.right(network, images, drawings)
        return f"{things:.3f} of what was planted found, {boxes:.3f} of the boxes right"

    def said(self, network: nn.Module, image: Tensor, grid: Grid | None = None) -> dict[str, Any]:
        """Return what a self-test expects of a network on one image, ``(1, C, *small)``.

        Its pixels lie in their source as `grid` says, or share a drawing evenly.
        """
        (found,) = self.found(network, image)
        placed = grid or Grid.partition(self.small, self.drawn)
        told = [{"of": key, "box": rounded(sourced(box, placed), 1)} for key, box in found]
        with torch.no_grad():
            best = network(image)[0, : len(self.classes)].flatten(1).amax(1)
        return {"logits": rounded(best), "boxes": told}

    def _seen(self, box: Bounds) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return starts and ends of a drawing's box in input pixels."""
        low, high = np.split(np.array(box, float), 2)
        scale = np.array(self.small) / np.array(self.drawn)
        return low * scale, high * scale


def sourced(box: Tensor, grid: Grid) -> NDArray[np.float64]:
    """Return a box of input pixels in those of the source, whose axes may be turned over."""
    corners = grid.to_source(box.double().numpy().reshape(2, -1) - 0.5) + 0.5
    return np.concatenate([corners.min(0), corners.max(0)])
