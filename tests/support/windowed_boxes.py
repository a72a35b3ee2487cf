"""What a detector finds in windows, by MONAI's windows and suppression and a decoding of its own.

Of outputs that are a grid of two pixels a cell: logits of classes, then the distances to the near
sides and to the far ones in cells, columns before rows before slices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.data.box_utils import non_max_suppression
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

STEP = 2


@dataclass(frozen=True)
class Proposals:
    """Every proposal of every window."""

    starts: Tensor
    """First pixel of its window, shape ``(P, axes)``."""

    boxes: Tensor
    """In pixels of the image, cut to the window, float64, shape ``(P, 2 * axes)``."""

    logits: Tensor
    """Float64, shape ``(P, classes)``."""

    def kept(self, index: int, threshold: float, overlap: float) -> Tensor:
        """Return the proposals of a class that suppression leaves, the best first."""
        (above,) = torch.where(self.logits[:, index].sigmoid() >= threshold)
        left = non_max_suppression(self.boxes[above], self.logits[above, index], overlap)
        return above[left]


def proposals_in_windows(
    network: nn.Module, image: Tensor, size: Sequence[int], overlap: float, classes: int = 2
) -> Proposals:
    """Return the proposals on an image, shape ``(C, *spatial)``, at least as large as a window."""
    axes, lines = len(size), [torch.arange(each) for each in image.shape[1:]]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij"))
    told: list[tuple[Tensor, Tensor, Tensor]] = []

    def one(batch: Tensor) -> Tensor:
        window, start = batch[:, :-axes], batch[0, -axes:].flatten(1)[:, 0]
        with torch.no_grad():
            (raw,) = network(window.to(image.dtype)).double()
        cells = [(torch.arange(each) + 0.5) * STEP for each in raw.shape[1:]]
        centers = torch.stack(torch.meshgrid(*cells, indexing="ij"), -1).reshape(-1, axes)
        logits, near, far = raw.flatten(1).T.split([classes, axes, axes], 1)
        edge = torch.tensor(size)
        sides = (centers - STEP * near.flip(1), centers + STEP * far.flip(1))
        low, high = (each.clamp(min=0).minimum(edge) for each in sides)
        boxes = torch.cat([low + start, high + start], 1)
        told.append((start.expand(len(boxes), -1), boxes, logits))
        return window

    both = torch.cat([image.double(), places.double()])[None]
    sliding_window_inference(both, tuple(size), 1, one, overlap)
    return Proposals(*map(torch.cat, zip(*told, strict=True)))
