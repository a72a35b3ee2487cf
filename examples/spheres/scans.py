"""Ways to scan a phantom: the ordinary one, and one that every step of preparation has to undo."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from examples.spheres.phantom import AIR, SHAPE, SPACING, Phantom

SHORT, WIDE = 2, 6
"""Slices that a short scan leaves out at each end, voxels that a wide field adds at each side."""


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """What a scanner stores of a phantom."""

    values: NDArray[np.float32]
    """Hounsfield units, slices, rows and columns."""

    affine: NDArray[np.float64]
    """Voxel ``(slice, row, column, 1)`` to patient coordinates (LPS, mm), homogeneous."""

    position: str
    """Of the patient, as DICOM has it."""


def supine(phantom: Phantom) -> Scan:
    """Return the phantom as it was drawn: slices up, rows back, columns left."""
    return Scan(phantom.values, _placed(SHAPE, 1), "HFS")


def prone(phantom: Phantom) -> Scan:
    """Return it face down, so that rows lead to the front and columns to the right.

    Its first and last slices are left out, and air is about it in a wider field.
    """
    turned = phantom.values[SHORT:-SHORT, ::-1, ::-1]
    values = np.pad(turned, ((0, 0), (WIDE, WIDE), (WIDE, WIDE)), constant_values=AIR)
    return Scan(values, _placed(values.shape, -1), "HFP")


SCANS: Final[tuple[Callable[[Phantom], Scan], ...]] = (supine, prone)
"""Of self-tests, one after the other."""


def _placed(shape: tuple[int, ...], way: int) -> NDArray[np.float64]:
    """Return the affine of a scan about the body's center; rows and columns lead one `way`."""
    steps = np.array(SPACING) * (1, way, way)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = steps
    affine[[2, 1, 0], 3] = -(np.array(shape) - 1) / 2 * steps
    affine[3, 3] = 1
    return affine
