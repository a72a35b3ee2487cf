"""Frontal chest radiographs of nobody, with findings whose masks are known exactly.

A case is a seed and the findings it shows. Everything else (the patient, where
a finding lies, the exposure, the noise) follows from the seed alone, so two
cases that differ in one finding differ in the image only inside its mask; so
it is with the marker.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from examples.phantom.anatomy import Build, Chest
from examples.phantom.canvas import Array, Canvas, Mask, Plate, Pose
from examples.phantom.findings import FINDINGS
from examples.phantom.marker import corner_marker

MAXIMUM = 4095
"""Largest stored value: 12 bits."""

PLATES = (Plate(43.0, 35.0), Plate(35.0, 35.0))

PREVALENCE = 0.3
"""Share of cases with a given finding; findings are independent of each other."""


@dataclass(frozen=True, slots=True)
class Case:
    """One radiograph to draw.

    Parameters
    ----------
    seed
        Decides everything but the findings.
    findings
        Names out of `FINDINGS`.
    marker
        Whether a lead letter lies in the plate's corner.
    """

    seed: int
    findings: frozenset[str] = frozenset()
    marker: bool = False


@dataclass(frozen=True, slots=True)
class Radiograph:
    """A drawn case.

    `stored` holds 12-bit values, larger for denser tissue (MONOCHROME2), shape
    ``(rows, columns)``; `masks` has the same shape for each finding present.
    """

    stored: NDArray[np.uint16]
    masks: Mapping[str, Mask]
    plate: Plate
    marker: Mask | None = None
    """Where the marker lies, of the same shape; `None` without one."""


def cases(seed: int, count: int) -> Iterator[Case]:
    """Draw `count` cases whose findings are independent of each other."""
    random = np.random.default_rng([seed, 0])
    for shown in random.random((count, len(FINDINGS))) < PREVALENCE:
        present = frozenset(name for name, on in zip(FINDINGS, shown, strict=True) if on)
        yield Case(int(random.integers(2**31)), present)


def plate_of(case: Case) -> Plate:
    """Return the plate on which `case` is taken."""
    return PLATES[case.seed % len(PLATES)]


def draw(case: Case, size: tuple[int, int]) -> Radiograph:
    """Draw `case` at `size` (rows, columns).

    The field of view does not depend on the size: at another aspect than the
    plate's the pixels are not square.
    """
    plate = plate_of(case)
    chest = _chest(case, plate, size)
    density, masks = chest.density, {}
    for index, (name, finding) in enumerate(FINDINGS.items()):
        if name in case.findings:
            lesion = finding(chest, np.random.default_rng([case.seed, 10 + index]))
            density = density + lesion.change
            masks[name] = lesion.mask
    density, marker = np.maximum(density, 0), None
    if case.marker:
        letter = corner_marker(plate, size, case.seed)
        density, marker = density + letter, letter > 0
    return Radiograph(_expose(density, case.seed), masks, plate, marker)


def _chest(case: Case, plate: Plate, size: tuple[int, int]) -> Chest:
    random = np.random.default_rng([case.seed, 1])
    down, right = random.uniform(-1.2, 1.2, 2)
    pose = Pose((down, right), random.uniform(-0.05, 0.05), random.uniform(0.92, 1.06))
    build = Build.draw(random)
    return Chest.draw(Canvas.of(plate, pose, size), build, random)


def _expose(density: Array, seed: int) -> NDArray[np.uint16]:
    """Turn density into stored values: a saturating film curve, gain, and quantum noise.

    The noise of one pixel grows as pixels get smaller, so that an image drawn
    large and averaged down is as noisy as one drawn small.
    """
    random = np.random.default_rng([seed, 2])
    gain, offset = random.uniform(2700, 3300), random.uniform(250, 500)
    value = offset + gain * (1 - np.exp(-random.uniform(1.1, 1.5) * density))
    per_megapixel = 8 + 20 * np.minimum(density, 1)
    noise = per_megapixel * np.float32(np.sqrt(density.size / 2**20))
    noise *= random.standard_normal(density.shape, dtype=np.float32)
    stored: NDArray[np.uint16] = np.clip(np.rint(value + noise), 0, MAXIMUM).astype(np.uint16)
    return stored
