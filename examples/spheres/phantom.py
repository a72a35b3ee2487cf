"""The phantom: an ellipsoid of soft tissue in air, with spheres that are denser or hollow.

Lengths are in mm and values in Hounsfield units; every phantom is drawn from
its seed alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FINDINGS: Final = ("dense", "hollow")
"""Classes, in the order of the model's outputs."""

CONTRAST: Final = {"dense": 260.0, "hollow": -260.0}
"""What a sphere differs by from the tissue around it."""

AIR, TISSUE, NOISE = -1000.0, 40.0, 25.0
LEAST: Final = -1024.0
"""The least value that a scanner stores."""

SHAPE: Final = (24, 48, 48)
SPACING: Final = (3.0, 1.5, 1.5)
"""Between slices, rows and columns."""

SEMIAXES: Final = (33.0, 30.0, 32.0)
"""Of the body, along slices, rows and columns."""

RADII: Final = (5.0, 8.0)
"""Least and greatest radius of a sphere."""


@dataclass(frozen=True, slots=True)
class Sphere:
    """A planted finding."""

    finding: str
    center: tuple[float, float, float]
    """From the volume's center, along slices, rows and columns."""

    radius: float

    @property
    def box(self) -> tuple[float, ...]:
        """The box about it in voxels: first slice, top, left, then the ends, past the end."""
        middle = np.array(SHAPE) / 2 + np.array(self.center) / SPACING
        reach = self.radius / np.array(SPACING)
        return tuple(map(float, (*(middle - reach), *(middle + reach))))


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """A volume and what is in it."""

    values: NDArray[np.float32]
    """Hounsfield units, shape `SHAPE`."""

    spheres: tuple[Sphere, ...]

    @property
    def boxes(self) -> tuple[tuple[str, tuple[float, ...]], ...]:
        """Each sphere's finding, and the box about it."""
        return tuple((each.finding, each.box) for each in self.spheres)

    @property
    def labels(self) -> NDArray[np.float32]:
        """1 for each finding that is in it, shape ``(classes,)``."""
        present = {sphere.finding for sphere in self.spheres}
        return np.array([each in present for each in FINDINGS], np.float32)

    def mask(self, finding: str) -> NDArray[np.bool_]:
        """Return the voxels within spheres of one finding, shape `SHAPE`."""
        inside = np.zeros(SHAPE, np.bool_)
        for sphere in self.spheres:
            if sphere.finding == finding:
                inside |= _distance(sphere) <= sphere.radius
        return inside


def draw(seed: int, findings: Sequence[str] | None = None) -> Phantom:
    """Draw a phantom with a sphere for each of `findings`; by default each with even odds."""
    random = np.random.default_rng(seed)
    if findings is None:
        findings = [each for each in FINDINGS if random.random() < 0.5]
    spheres: list[Sphere] = []
    for finding in findings:
        spheres.append(_placed(finding, random, spheres))
    along = _coordinates()
    body = sum((axis / length) ** 2 for axis, length in zip(along, SEMIAXES, strict=True)) <= 1
    values = np.where(body, TISSUE, AIR)
    for sphere in spheres:
        share = np.clip((sphere.radius - _distance(sphere)) / SPACING[1] + 0.5, 0, 1)
        values = values + share * CONTRAST[sphere.finding]
    values = values + random.normal(0, NOISE, SHAPE)
    return Phantom(np.maximum(values, LEAST).astype(np.float32), tuple(spheres))


def _placed(finding: str, random: np.random.Generator, others: Sequence[Sphere]) -> Sphere:
    """Place a sphere within the body, clear of its surface and of others."""
    while True:
        radius = float(random.uniform(*RADII))
        shares = random.uniform(-1, 1, 3)
        room = np.array(SEMIAXES) - radius - 4
        center = shares * room
        clear = all(
            np.linalg.norm(center - other.center) > radius + other.radius + 4 for other in others
        )
        if np.linalg.norm(shares) <= 1 and clear:
            return Sphere(finding, (float(center[0]), float(center[1]), float(center[2])), radius)


def _coordinates() -> list[NDArray[np.float64]]:
    """Return each voxel's place from the center along each axis, three arrays of `SHAPE`."""
    axes = [
        (np.arange(count) - (count - 1) / 2) * spacing
        for count, spacing in zip(SHAPE, SPACING, strict=True)
    ]
    return list(np.meshgrid(*axes, indexing="ij"))


def _distance(sphere: Sphere) -> NDArray[np.float64]:
    """Return each voxel's distance from the sphere's center, shape `SHAPE`."""
    squares = [(axis - at) ** 2 for axis, at in zip(_coordinates(), sphere.center, strict=True)]
    return np.asarray(np.sqrt(sum(squares)))
