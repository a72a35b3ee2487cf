"""The probe bank's passes: by how much each score falls when one place is blurred away.

The passes depend on the image alone. One bank answers for every target and
every method of a job, because a forward pass gives all of the model's outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.device import sent
from workers.measures.base import Inquiry, Scene
from workers.measures.bearing import too_small
from workers.measures.cells import lattices, lines
from workers.passes import Forward, Plan, Step, Targets
from workers.rows import Blurred, Box, Clean

SIGMA_SHARE: Final = 1 / 2
"""Width of the blur that hides a place, as a share of the image's edge.

Wider than any cell, so that nothing but the image's slow gradient is left of
what was hidden. A tighter one fills a place with what lies next to it: of a
finding wider than a cell it leaves most. (Of 111 right maps of cardiomegaly in
the demo model 9 % are supported with a twelfth of the edge, 95 % with half.)
"""

Line = NDArray[np.float64]

AXES: Final = (2, 3)
"""Spatial axes for which there are cells."""


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """What hiding each place did to each scalar: by default, each of the model's outputs."""

    shape: tuple[int, ...]
    """Spatial shape of the model's input."""

    scores: NDArray[np.float64]
    """Scalars on the unchanged image, shape ``(scalars,)``."""

    drops: NDArray[np.float64]
    """Fall of each scalar, shape ``(cells, scalars)``, cells lattice by lattice."""


def rows_of(shape: Sequence[int]) -> int:
    """Return the cells of an image ``(C, *spatial)``, and one for the image itself."""
    return 1 + sum(len(each.walls) for each in lattices(len(shape) - 1))


def bank(
    image: Tensor, scores: NDArray[np.float64] | None = None, scalars: Targets = ()
) -> Plan[Bank]:
    """Blur one cell of `image` after the other.

    Parameters
    ----------
    image
        Model input, shape ``(C, *spatial)`` with two or three spatial axes, on
        the runtime's device.
    scores
        The scalars on it, shape ``(scalars,)``; asked for if not known.
    scalars
        What is asked of the model; if empty, each of a classifier's outputs.
    """
    shape = tuple(image.shape[1:])
    boxes = tuple(map(_box, zip(*_lines(shape), strict=True)))
    rows = Blurred(image, boxes, blurred(image), partial(_share, image, boxes))
    asks = [Forward(rows, scalars, outputs=not scalars)]
    if scores is None:
        asks.append(Forward(Clean(image), scalars, outputs=not scalars))
    hidden, *clean = yield tuple(asks)
    known = said(clean[0])[0] if scores is None else scores
    return Bank(shape, known, known - said(hidden))


def blurred(image: Tensor, share: float = SIGMA_SHARE) -> Tensor:
    """Return `image` under a Gaussian blur; its border is continued outward.

    Parameters
    ----------
    image
        Shape ``(C, *spatial)``.
    share
        Standard deviation along each axis, as a share of the edge.
    """
    result = image
    for axis in range(1, image.dim()):
        smoother = _smoother(image.shape[axis], share).to(image)
        result = torch.tensordot(result, smoother, dims=([axis], [1])).movedim(-1, axis)
    return result


def _lines(shape: Sequence[int]) -> list[Line]:
    """Return every cell's weights along each axis, shape ``(cells, size)`` each."""
    return [lines(size, len(shape), axis) for axis, size in enumerate(shape)]


def _box(weights: Sequence[Line]) -> Box:
    """Return where a cell weighs anything, by its weights along each axis."""
    return tuple(slice(*np.flatnonzero(each)[[0, -1]] + (0, 1)) for each in weights)


def _share(image: Tensor, boxes: Sequence[Box], cell: int) -> Tensor:
    """Return a cell's weights in its box, shape ``(1, *box)``."""
    along = [
        each[cell, side] for each, side in zip(_lines(image.shape[1:]), boxes[cell], strict=True)
    ]
    share: Line = reduce(np.multiply.outer, along)
    return sent(torch.from_numpy(share), image.device, image.dtype)[None]


@lru_cache(maxsize=8)
def _smoother(size: int, share: float) -> Tensor:
    """Return the blur along one axis as a matrix, shape ``(size, size)``."""
    reach = max(1, round(3 * share * size))
    offsets = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / (share * size)) ** 2)
    source = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    empty = torch.zeros(size, size, dtype=torch.float64)
    return empty.scatter_add(1, source, (kernel / kernel.sum()).expand(size, -1))


def said(step: Step) -> NDArray[np.float64]:
    """Return the scalars of a step as float64, shape ``(rows, scalars)``; else its outputs."""
    values = step.outputs if step.scores is None else step.scores
    assert values is not None  # noqa: S101 - one of both was asked for
    return values.detach().double().cpu().numpy()


def _rows(scene: Scene) -> int:
    """Return the rows of an image's cells; none where there are none, or too small ones."""
    spatial = scene.image.shape[1:]
    probed = len(spatial) in AXES and not too_small(spatial, scene.pixels)
    return rows_of(scene.image.shape) - 1 if probed else 0


BANK: Final = Inquiry("bank", lambda scene: bank(scene.image, scene.scores, scene.scalars), _rows)
"""Asked once for an image, whatever the number of its methods and targets."""
