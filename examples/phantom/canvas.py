"""The plate on which a phantom is drawn: coordinates in cm, soft edges, smooth noise.

Everything is a function of position in centimeters, so the same chest can be
drawn at 256 pixels for training and at 1,280 for a DICOM object.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Plate:
    """A detector plate.

    Parameters
    ----------
    height, width
        Exposed area in cm.
    """

    height: float = 43.0
    width: float = 35.0


@dataclass(frozen=True, slots=True)
class Pose:
    """How the patient stands before the plate.

    Parameters
    ----------
    shift
        Offset of the chest from the middle of the plate, (down, right) in cm.
    tilt
        Rotation in radians.
    scale
        Size of the patient; 1 is average.
    """

    shift: tuple[float, float]
    tilt: float
    scale: float


@dataclass(frozen=True, slots=True)
class Canvas:
    """Patient coordinates of every pixel, shape ``(rows, columns)`` each.

    `x` runs from the midline to the right of the image (the patient's left),
    `y` from the middle of the lungs downward, both in cm of an average patient.
    """

    x: Array
    y: Array

    @classmethod
    def of(cls, plate: Plate, pose: Pose, size: tuple[int, int]) -> "Canvas":
        """Lay a grid of `size` (rows, columns) pixels over the plate."""
        rows, columns = size
        down = ((np.arange(rows) + 0.5) / rows - 0.5) * plate.height - pose.shift[0]
        right = ((np.arange(columns) + 0.5) / columns - 0.5) * plate.width - pose.shift[1]
        cos, sin = np.cos(pose.tilt) / pose.scale, np.sin(pose.tilt) / pose.scale
        x = cos * right[None, :] + sin * down[:, None]
        y = cos * down[:, None] - sin * right[None, :]
        return cls(x.astype(np.float32), y.astype(np.float32))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.x.shape
        return rows, columns


def soft(distance: Array, edge: float) -> Array:
    """Return a smooth step: 0 below ``-edge/2``, 1 above ``edge/2`` (cm)."""
    t = np.clip(distance / np.float32(edge) + np.float32(0.5), 0, 1)
    step: Array = t * t * (3 - 2 * t)
    return step


def ellipse(x: Array, y: Array, center: tuple[float, float], axes: tuple[float, float]) -> Array:
    """Return the squared radius in units of the ellipse: 0 in the middle, 1 on its rim."""
    radius: Array = np.square((x - center[0]) / axes[0]) + np.square((y - center[1]) / axes[1])
    return radius


def texture(random: np.random.Generator, cells: int, size: tuple[int, int]) -> Array:
    """Return smooth noise of unit variance on its nodes, the same picture at every size.

    Parameters
    ----------
    random
        Source of ``(cells + 3) ** 2`` normal values.
    cells
        Number of grid cells along each side: the finest detail.
    size
        Rows and columns of the result.
    """
    nodes = random.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    smooth: Array = _spline(size[0], cells) @ nodes @ _spline(size[1], cells).T
    return smooth


def _spline(length: int, cells: int) -> Array:
    """Return cubic B-spline weights of `length` pixels on ``cells + 3`` nodes."""
    position = (np.arange(length) + 0.5) / length * cells
    distance = np.abs(position[:, None] - (np.arange(cells + 3) - 1.0)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    weights: Array = np.where(distance < 1, near, far).astype(np.float32)
    return weights
